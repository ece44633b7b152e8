// SPDX-License-Identifier: Apache-2.0
//
// Conversion of a whole checkpoint between forms, containers, dialects and number formats. A conversion is planned from
// headers (rows), laid out (files and offsets), and run: on all threads, in bounded memory, with a journal from which
// it is resumed. An interrupted conversion leaves nothing that looks whole.
#ifndef LARQL_CONVERT_HPP
#define LARQL_CONVERT_HPP

#include <larql/attention_form.hpp>
#include <larql/checkpoint.hpp>
#include <larql/container.hpp>
#include <larql/detail/separate.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace larql {

namespace detail {
struct planned_conversion;
}  // namespace detail

/// What a conversion makes.
struct conversion_options {
    attention_form form = attention_form::dense;
    container to = container::safetensors;
    /// Of matrices. Nothing: as they are stored, byte for byte where they do not change, and float32 where the
    /// container has no word for their type. Vectors and routers are never rounded.
    std::optional<dtype> type{};
    /// Of matrices of attention. Nothing: `type`, and if that is nothing, float32 for those that are computed.
    std::optional<dtype> attention_type{};
    bool split_kv_b = true;  ///< published GGUF of latent attention has k_b and v_b, as llama.cpp's; false: kv_b
    std::size_t layer_begin = 0;
    std::size_t layer_end = std::numeric_limits<std::size_t>::max();  ///< attention blocks [begin, end) only
    std::uint64_t shard_bytes = 5'000'000'000;  ///< tensor data per file; a tensor is never divided
    bool replace = false;                       ///< replace a model that is already there
    bool resume = false;                        ///< go on where an earlier run of the same conversion ended
    std::size_t part = 0, parts = 0;            ///< make the files of one part, from 1; 0 of 0: all
    bool join = false;            ///< make a model of what `parts` parts made; 0: of what all that are there made
    double sync_seconds = 10.0;   ///< how often what is made becomes durable, so that a resumed run need not make it
    executor* threads = nullptr;  ///< null: one thread
    /// Called from the thread that runs the conversion, after each piece of work, with bytes. What it throws ends the
    /// conversion.
    std::function<void(std::uint64_t done, std::uint64_t total)> progress{};
};

/// A conversion that is planned: nothing of the tensors but headers and a few vectors was read, and nothing written.
class conversion {
public:
    /// A file of the output.
    struct file {
        std::string name;
        std::uint64_t size_bytes = 0;
        std::size_t tensors = 0;
    };

    /// Attention becomes the wanted form; every other tensor is carried over.
    ///
    /// In safetensors and vindex names are the source's, of GGUF transformers'; factored tensors have the published row
    /// order, whatever GGUF's was. Dense and latent tensors have rows [rope | nope] with half-split pairs and gains
    /// folded in, and are named q_proj, k_proj, v_proj, o_proj, q_a_proj, kv_a_proj (dense) and q_a_proj, q_b_proj,
    /// kv_a_proj_with_mqa, k_b_proj [H, R, N], v_b_proj [H, V, R], o_proj (latent). Factored GGUF is what llama.cpp
    /// reads; dense and latent GGUF, and a part of a model, have an architecture of larql's own, with transformers'
    /// names. Blocks beyond the model's layers (multi-token prediction) are copied in their own form, and
    /// stand in factored GGUF in its dialect where llama.cpp keeps them; where not, a warning says so. Of a source that
    /// is itself a part of a model, the blocks that it has are converted.
    ///
    /// @param target  a folder, which is made if it does not exist; for GGUF also the name of a file ending in .gguf
    /// @throws error what the source's headers give; errc::unsupported_dtype; errc::unsupported_architecture for a form
    ///         that the model does not have and for what the container has no words for; errc::not_understood for
    ///         tensors that it has no names for
    conversion(checkpoint source, const std::filesystem::path& target, conversion_options options);
    conversion(const conversion&) = delete;
    conversion& operator=(const conversion&) = delete;
    ~conversion();

    [[nodiscard]] std::vector<file> files() const;
    /// Units of work.
    [[nodiscard]] std::size_t rows() const noexcept;
    /// What the output will not have that the source has, a sentence each.
    [[nodiscard]] const std::vector<std::string>& warnings() const noexcept;
    [[nodiscard]] const std::filesystem::path& folder() const noexcept;

    /// Makes some of the output's bytes in memory, for `seconds` or until all are made.
    /// @return  bytes per second, 0 if there are none
    [[nodiscard]] double measure(double seconds) const;

    /// Makes the files. They appear under their names when all of them are complete and durable, config.json last.
    /// @throws error errc::already_exists for a model that may not be replaced, or for a target that is the source;
    ///         errc::source_changed; errc::bad_value if a number overflows the output type; errc::io. After an error
    ///         the old model is whole, or, after all was done, the new one.
    void run();

private:
    std::unique_ptr<detail::planned_conversion> m_planned;
};

/// The config.json of a conversion. The whole model in factored form has the source's (of GGUF: the one that
/// transformers would have), without a quantisation that is gone; other conversions have their own model_type and a
/// `larql` object that says how their tensors lie, so that no other program takes them for the published model.
/// @throws error as conversion
LARQL_INLINE nlohmann::json converted_config(const checkpoint& source, const conversion_options& options);

/// Converts a checkpoint into a folder of safetensors with config.json, in transformers' names: conversion, planned and
/// run.
LARQL_INLINE void convert_to_safetensors(const checkpoint& source, const std::filesystem::path& folder,
                                         conversion_options options);

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/convert.hpp>
#endif

#endif
