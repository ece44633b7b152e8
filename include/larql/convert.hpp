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

namespace detail {

/// Says which numbers the tensors are made of, in every object that said so before, and forgets the quantisation that
/// they no longer have.
inline void state_number_format(nlohmann::json& config, dtype type) {
    const char* name = type == dtype::f32 ? "float32" : type == dtype::f16 ? "float16" : "bfloat16";
    const text_part text = find_text_part(config);
    for (nlohmann::json* object : {&config, const_cast<nlohmann::json*>(text.object)}) {
        for (const char* key : {"quantization_config", "compression_config", "quantization"}) object->erase(key);
        for (const char* key : {"torch_dtype", "dtype"})
            if (object->contains(key)) (*object)[key] = name;
    }
    if (!config.contains("torch_dtype") && !config.contains("dtype")) config["torch_dtype"] = name;
}

}  // namespace detail

/// The config.json of a conversion.
///
/// The factored form of a whole model is what transformers knows: its configuration is the published one, without the
/// quantisation that the tensors no longer have. Other forms, and parts of a model, have a model_type and a class of
/// larql's own, so that nothing takes them for the published architecture; a `larql` object says what they are.
inline nlohmann::json converted_config(const checkpoint& source, const conversion_options& options) {
    const model_config& model = source.config();
    const bool part = options.layer_begin > 0 || options.layer_end < model.blocks.size();
    const bool published = options.form == attention_form::factored && !part;
    nlohmann::json config = source.config_json();
    if (!published) config = nlohmann::json(*detail::find_text_part(config).object);  // all at the top, for larql alone
    detail::state_number_format(config, options.type);
    if (published) return config;

    const attention_spec& spec = source.spec(options.layer_begin);
    const bool changed = options.form != model.form;
    const rope_pairing pairing = changed ? detail::pairing_after(spec.geometry, absorb_options{}.pairing)
                                 : source.gguf() != nullptr ? source.family().pairing
                                                            : spec.geometry.pairing;
    config["model_type"] = "larql-" + std::string(to_string(options.form));
    config["architectures"] = {options.form == attention_form::dense    ? "LarqlDenseModel"
                               : options.form == attention_form::latent ? "LarqlLatentModel"
                                                                        : "LarqlFactoredModel"};
    config.erase("auto_map");  // code that would load the tensors as what they no longer are
    config["larql"] = {{"model_type", model.model_type},
                       {"row_order", to_string(changed ? absorb_options{}.order : spec.geometry.order)},
                       {"pairing", to_string(pairing)},
                       {"dtype", to_string(options.type)},
                       {"source_format", source.format()}};
    if (part) config["larql"]["layers"] = {options.layer_begin, options.layer_end};
    return config;
}

/// Converts a checkpoint into a folder of safetensors with config.json, in transformers' names.
///
/// Attention becomes the wanted form; every other tensor is copied as it is, or decoded to `type` where its format is one
/// of GGUF's blocks or was described by a quantization_config, which is left out. From GGUF, tensors have transformers'
/// names and rows transformers' order, and a tensor without such a name is an error. Dense and latent tensors have rows [rope | nope] with half-split pairs and gains folded
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
    const model_config& model = source.config();
    options.layer_begin = std::max(options.layer_begin, model.block_begin);
    options.layer_end = std::min(options.layer_end, model.block_end);
    if (options.layer_begin >= options.layer_end)
        detail::fail(errc::bad_value,
                     "expected blocks within " + std::to_string(model.block_begin) + " to " +
                         std::to_string(model.block_end) + ", got " + std::to_string(options.layer_begin) + " to " +
                         std::to_string(options.layer_end),
                     {.subject = "layers"});
    detail::require_form(model, source.spec(options.layer_begin), options.form, source.shard_path(0));
    const nlohmann::json config = converted_config(source, options);  // before the first byte: it may have no words
    const std::vector<detail::conversion_job> jobs =
        detail::conversion_planner(source, options.form, options.type, options.layer_begin, options.layer_end).plan();
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
