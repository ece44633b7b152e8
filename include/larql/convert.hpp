// SPDX-License-Identifier: Apache-2.0
//
// Streaming conversion of a whole checkpoint between forms and formats. Rows are read, computed, converted and written
// piece by piece: memory is a few hundred megabytes whatever the size of the model, and an interrupted conversion
// leaves nothing that looks whole.
#ifndef LARQL_CONVERT_HPP
#define LARQL_CONVERT_HPP

#include <larql/attention_form.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/convert/conversion_plan.hpp>
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

/// The config.json of a conversion: the source's, with a `larql` object that says how the attention tensors are stored.
inline nlohmann::json converted_config(const checkpoint& source, const conversion_options& options) {
    nlohmann::json config = source.config_json();
    const model_config& model = source.config();
    const bool changed = options.form != model.form;
    const rope_pairing pairing =
        changed ? detail::pairing_after(source.geometry(), absorb_options{}.pairing) : model.pairing;
    config["larql"] = {{"form", to_string(options.form)},
                       {"row_order", to_string(changed ? absorb_options{}.order : model.order)},
                       {"pairing", to_string(pairing)},
                       {"attention_scale", model.attention_scale},
                       {"latent_norm_eps", model.latent_norm_eps},
                       {"dtype", to_string(options.type)},
                       {"source_format", source.format()}};
    return config;
}

/// Converts a checkpoint into a folder of safetensors with config.json, in transformers' names.
///
/// Attention becomes the wanted form; every other tensor is copied as it is (from GGUF: under transformers' name, block
/// formats decoded to `type`). Dense and latent tensors have rows [rope | nope] with half-split pairs and gains folded
/// in, and are named q_proj, k_proj, v_proj, o_proj, q_a_proj, kv_a_proj (dense) and q_a_proj, q_b_proj,
/// kv_a_proj_with_mqa, k_b_proj [H, R, N], v_b_proj [H, V, R], o_proj (latent). Blocks beyond the model's layers
/// (multi-token prediction) are copied as they are.
///
/// @param folder  is made if it does not exist; may be neither the source nor, unless `replace`, hold a model
/// @throws error what the source's tensors give when read; errc::already_exists; errc::io; errc::bad_value if a number
///         overflows the output type; errc::unsupported_architecture for a form that the model does not have
/// @note   Files appear under their names when all of them are complete, config.json last.
inline void convert_to_safetensors(const checkpoint& source, const std::filesystem::path& folder,
                                   conversion_options options) {
    if (options.type != dtype::f32 && options.type != dtype::f16 && options.type != dtype::bf16)
        detail::fail(errc::unsupported_dtype, "expected F32, F16 or BF16, got " + std::string(to_string(options.type)),
                     {.subject = "dtype"});
    options.layer_end = std::min(options.layer_end, source.attention_blocks());
    if (options.layer_begin >= options.layer_end)
        detail::fail(errc::bad_value,
                     "expected blocks within 0 to " + std::to_string(source.attention_blocks()) + ", got " +
                         std::to_string(options.layer_begin) + " to " + std::to_string(options.layer_end),
                     {.subject = "layers"});
    const std::vector<detail::conversion_job> jobs =
        detail::conversion_planner(source, options.form, options.type, options.layer_begin, options.layer_end).plan();
    detail::shard_writer writer(folder, source.paths(), jobs, options.shard_bytes, options.replace);
    serial_executor serial;
    executor& threads = options.threads != nullptr ? *options.threads : serial;
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        jobs[i].run(writer, threads);
        if (options.progress) options.progress(i + 1, jobs.size());
    }
    writer.commit(converted_config(source, options));
}

}  // namespace larql

#endif
