// SPDX-License-Identifier: Apache-2.0
//
// Conversion of a whole checkpoint between forms, containers, dialects and number formats. A conversion is planned from
// headers (rows), laid out (files and offsets), and run: on all threads, in bounded memory, with a journal from which
// it is resumed. An interrupted conversion leaves nothing that looks whole.
#ifndef LARQL_CONVERT_HPP
#define LARQL_CONVERT_HPP

#include <larql/attention_form.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/convert/conversion_plan.hpp>
#include <larql/detail/convert/converted_config.hpp>
#include <larql/detail/convert/fingerprint.hpp>
#include <larql/detail/convert/gguf_model_metadata.hpp>
#include <larql/detail/convert/gguf_own_metadata.hpp>
#include <larql/detail/convert/layout.hpp>
#include <larql/detail/convert/layout_vindex.hpp>
#include <larql/detail/convert/measure.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/convert/read_back.hpp>
#include <larql/detail/convert/run.hpp>
#include <larql/detail/convert/target.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace larql {

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
    /// names. Blocks beyond the model's layers (multi-token prediction) are copied in their own form. Of a source that
    /// is itself a part of a model, the blocks that it has are converted.
    ///
    /// @param target  a folder, which is made if it does not exist; for GGUF also the name of a file ending in .gguf
    /// @throws error what the source's headers give; errc::unsupported_dtype; errc::unsupported_architecture for a form
    ///         that the model does not have and for what the container has no words for; errc::not_understood for
    ///         tensors that it has no names for
    conversion(checkpoint source, const std::filesystem::path& target, conversion_options options)
        : m_source(std::move(source)),
          m_options(std::move(options)),
          m_scope(scope_of(m_source, m_options)),
          m_target(target, m_options.to),
          m_plan(detail::conversion_planner(m_source, m_scope).plan()) {
        lay_out();
    }
    conversion(const conversion&) = delete;
    conversion& operator=(const conversion&) = delete;

    [[nodiscard]] std::vector<file> files() const {
        std::vector<file> all;
        for (const detail::planned_file& f : m_layout.files) all.push_back({f.name, f.size_bytes, f.tensors.size()});
        for (const detail::planned_text& text : m_layout.texts) all.push_back({text.name, text.content.size(), 0});
        for (const auto& [name, path] : m_carried) {
            std::error_code unknown;
            const auto size = std::filesystem::file_size(path, unknown);
            all.push_back({name, unknown ? 0 : size, 0});
        }
        return all;
    }
    /// Units of work.
    [[nodiscard]] std::size_t rows() const noexcept { return m_plan.rows.size(); }
    /// What the output will not have that the source has, a sentence each.
    [[nodiscard]] const std::vector<std::string>& warnings() const noexcept { return m_plan.warnings; }
    [[nodiscard]] const std::filesystem::path& folder() const noexcept { return m_target.folder; }

    /// Makes some of the output's bytes in memory, for `seconds` or until all are made.
    /// @return  bytes per second, 0 if there are none
    [[nodiscard]] double measure(double seconds) const;

    /// Makes the files. They appear under their names when all of them are complete and durable, config.json last.
    /// @throws error errc::already_exists for a model that may not be replaced, or for a target that is the source;
    ///         errc::source_changed; errc::bad_value if a number overflows the output type; errc::io. After an error
    ///         the old model is whole, or, after all was done, the new one.
    void run() {
        serial_executor serial;
        detail::conversion_order order;
        order.folder = m_target.folder;
        order.journal_name = m_target.journal_name;
        order.rows = m_plan.rows;
        order.layout = &m_layout;
        order.carried = m_carried;
        order.plan_print = detail::plan_fingerprint(m_source, m_scope, m_plan.rows, m_layout);
        order.source_print = detail::source_fingerprint(m_source);
        order.part = {m_options.part, m_options.parts, m_options.join};
        order.resume = m_options.resume;
        order.sync_seconds = m_options.sync_seconds;
        order.progress = m_options.progress;
        std::vector<std::string> names;
        for (const file& f : files()) names.push_back(f.name);
        detail::refuse_source(m_source, m_target, m_options.to, names);
        order.find_old_files = [&] { return detail::old_files(m_target, m_options.to, names, m_options.replace); };
        detail::conversion_run(order, m_options.threads != nullptr ? *m_options.threads : serial).run();
    }

private:
    /// The options, held against the source.
    static detail::conversion_scope scope_of(const checkpoint& source, const conversion_options& options) {
        const model_config& model = source.config();
        detail::conversion_scope scope{.form = options.form,
                                       .kind = options.to,
                                       .general = options.type,
                                       .attention = options.attention_type ? options.attention_type : options.type,
                                       .block_begin = std::max(options.layer_begin, model.block_begin),
                                       .block_end = std::min(options.layer_end, model.block_end),
                                       .split_kv_b = options.split_kv_b};
        detail::require_writable_type(options.to, scope.general, "dtype");
        detail::require_writable_type(options.to, scope.attention, "attn-dtype");
        if (scope.block_begin >= scope.block_end)
            detail::fail(errc::bad_value,
                         "expected blocks within " + std::to_string(model.block_begin) + " to " +
                             std::to_string(model.block_end) + ", got " + std::to_string(options.layer_begin) + " to " +
                             std::to_string(std::min(options.layer_end, model.blocks.size())),
                         {.subject = "layers"});
        scope.whole = scope.block_begin == 0 && scope.block_end == model.blocks.size();
        // llama.cpp's converter makes float32 of vectors whatever they were; they become what the matrices are again.
        if (source.has_gguf_names() && !scope.published_gguf()) scope.of_vectors = detail::most_of_matrices(source);
        const bool parts =
            options.part <= options.parts && (options.join || (options.part == 0) == (options.parts == 0));
        if (!parts)
            detail::fail(errc::bad_value,
                         "expected a number from 1 to " + std::to_string(options.parts) + ", got " +
                             std::to_string(options.part),
                         {.subject = "part"});
        return scope;
    }

    void lay_out() {
        if (m_options.to == container::gguf) return lay_out_gguf();
        const nlohmann::json described = config();
        if (m_options.to == container::vindex) {
            m_layout = detail::vindex_builder(m_source, m_scope, m_plan.rows, described).build(m_plan.warnings);
        } else {
            m_layout = detail::lay_out_safetensors(m_plan.rows, m_options.shard_bytes);
            m_layout.texts.push_back({"config.json", described.dump(2) + "\n", {}});
        }
        m_carried = detail::files_beside(m_source);
        for (detail::planned_text& text : detail::texts_of_gguf(m_source))
            m_layout.texts.insert(m_layout.texts.begin(), std::move(text));
    }

    void lay_out_gguf() {
        detail::gguf_metadata metadata;
        if (m_scope.published_gguf()) {
            if (auto divisors = detail::rope_freqs_row(m_source)) m_plan.rows.push_back(*std::move(divisors));
            metadata = detail::gguf_model_metadata(m_source, m_scope, m_plan.rows).make();
        } else {
            metadata = detail::own_metadata(m_source, m_scope, config());
        }
        if (m_scope.published_gguf()) {
            const auto whole = detail::lay_out_gguf(m_plan.rows, metadata, m_target.gguf_name, UINT64_MAX);
            detail::require_reads_back(m_source, whole.files.front(), m_plan.rows);
        }
        m_layout = detail::lay_out_gguf(m_plan.rows, std::move(metadata), m_target.gguf_name, m_options.shard_bytes);
    }

    [[nodiscard]] nlohmann::json config() const {
        std::optional<dtype> stated = m_scope.general;
        if (!stated) stated = m_scope.of_vectors;
        return detail::convert_config(m_source, m_scope, stated, m_plan.keeps_quantisation);
    }
    checkpoint m_source;
    conversion_options m_options;
    detail::conversion_scope m_scope;
    detail::conversion_target m_target;
    detail::conversion_plan m_plan;
    detail::conversion_layout m_layout;
    std::vector<std::pair<std::string, std::filesystem::path>> m_carried;

    friend nlohmann::json converted_config(const checkpoint& source, const conversion_options& options);
};

inline double conversion::measure(double seconds) const {
    serial_executor serial;
    executor& threads = m_options.threads != nullptr ? *m_options.threads : static_cast<executor&>(serial);
    return detail::measure_rate(m_plan.rows, threads, seconds);
}

/// The config.json of a conversion. The whole model in factored form has the source's (of GGUF: the one that
/// transformers would have), without a quantisation that is gone; other conversions have their own model_type and a
/// `larql` object that says how their tensors lie, so that no other program takes them for the published model.
/// @throws error as conversion
inline nlohmann::json converted_config(const checkpoint& source, const conversion_options& options) {
    return conversion(source, "unnamed", options).config();
}

/// Converts a checkpoint into a folder of safetensors with config.json, in transformers' names: conversion, planned and
/// run.
inline void convert_to_safetensors(const checkpoint& source, const std::filesystem::path& folder,
                                   conversion_options options) {
    options.to = container::safetensors;
    conversion(source, folder, std::move(options)).run();
}

}  // namespace larql

#endif
