// SPDX-License-Identifier: Apache-2.0
//
// Streaming conversion of a whole checkpoint between forms and formats. Rows are read, computed, converted and written
// piece by piece: memory is a few hundred megabytes whatever the size of the model, and an interrupted conversion
// leaves nothing that looks whole.
#ifndef LARQL_CONVERT_HPP
#define LARQL_CONVERT_HPP

#include <larql/attention_form.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/convert/conversion_job.hpp>
#include <larql/detail/convert/conversion_plan.hpp>
#include <larql/detail/convert/converted_config.hpp>
#include <larql/detail/convert/shard_writer.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace larql {

/// What a conversion makes.
struct conversion_options {
    attention_form form = attention_form::dense;
    dtype type = dtype::f32;  ///< of the tensors that are computed or decoded: f32, f16 or bf16
    std::size_t layer_begin = 0;
    std::size_t layer_end = std::numeric_limits<std::size_t>::max();  ///< attention blocks [begin, end) only
    std::uint64_t shard_bytes = 5'000'000'000;  ///< tensor data per file; a tensor is never divided
    bool replace = false;                       ///< replace a conversion that is already there
    executor* threads = nullptr;                ///< null: one thread
    std::function<void(std::size_t done, std::size_t total)> progress{};  ///< called after each piece of work
};

namespace detail {

/// The options, held against the source.
inline conversion_scope scope_of(const checkpoint& source, const conversion_options& options) {
    if (options.type != dtype::f32 && options.type != dtype::f16 && options.type != dtype::bf16)
        fail(errc::unsupported_dtype, "expected F32, F16 or BF16, got " + std::string(to_string(options.type)),
             {.subject = "dtype"});
    const model_config& model = source.config();
    const conversion_scope scope{.form = options.form,
                                 .type = options.type,
                                 .block_begin = std::max(options.layer_begin, model.block_begin),
                                 .block_end = std::min(options.layer_end, model.block_end)};
    if (scope.block_begin >= scope.block_end)
        fail(errc::bad_value,
             "expected blocks within " + std::to_string(model.block_begin) + " to " + std::to_string(model.block_end) +
                 ", got " + std::to_string(options.layer_begin) + " to " +
                 std::to_string(std::min(options.layer_end, model.blocks.size())),
             {.subject = "layers"});
    return scope;
}

}  // namespace detail

/// The config.json of a conversion. The whole model in factored form has the source's (of GGUF: the one that
/// transformers would have), without the quantisation that is gone; other conversions have their own model_type and a
/// `larql` object that says how their tensors lie, so that no other program takes them for the published model.
/// @throws error as convert_to_safetensors
inline nlohmann::json converted_config(const checkpoint& source, const conversion_options& options) {
    return detail::convert_config(source, detail::scope_of(source, options));
}

/// Converts a checkpoint into a folder of safetensors with config.json, in transformers' names.
///
/// Attention becomes the wanted form; every other tensor is copied as it is. Quantised weights and block formats are
/// decoded to `type`; gains, biases and routers that GGUF stores as F32 take it where it holds them exactly. Names are
/// the source's, of GGUF transformers'; factored tensors have the published row order, whatever GGUF's was. Dense and
/// latent tensors have rows [rope | nope] with half-split pairs and gains folded in, and are named q_proj, k_proj,
/// v_proj, o_proj, q_a_proj, kv_a_proj (dense) and q_a_proj, q_b_proj, kv_a_proj_with_mqa, k_b_proj [H, R, N], v_b_proj
/// [H, V, R], o_proj (latent). Blocks beyond the model's layers (multi-token prediction) are copied in their own form.
/// Of a source that is itself a part of a model, the blocks that it has are converted.
///
/// @param folder  is made if it does not exist; may be neither the source nor, unless `replace`, hold a model
/// @throws error what the source's tensors give when read; errc::already_exists; errc::io; errc::bad_value if a number
///         overflows the output type; errc::unsupported_architecture for a form that the model does not have and for
///         what transformers has no words for; errc::not_understood for tensors of GGUF that it has no names for
/// @note   Files appear under their names when all of them are complete, config.json last.
inline void convert_to_safetensors(const checkpoint& source, const std::filesystem::path& folder,
                                   const conversion_options& options) {
    const detail::conversion_scope scope = detail::scope_of(source, options);
    const nlohmann::json config = detail::convert_config(source, scope);
    const std::vector<detail::conversion_job> jobs = detail::conversion_planner(source, scope).plan();
    detail::shard_writer writer(folder, source.paths(), jobs, options.shard_bytes, options.replace);
    serial_executor serial;
    executor& threads = options.threads != nullptr ? *options.threads : serial;
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        jobs[i].run(writer, threads);
        if (options.progress) options.progress(i + 1, jobs.size());
    }
    writer.commit(config);
}

}  // namespace larql

#endif
