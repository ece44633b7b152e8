// SPDX-License-Identifier: Apache-2.0
//
// The bodies of checkpoint.hpp.
#ifndef LARQL_DETAIL_BODIES_CHECKPOINT_HPP
#define LARQL_DETAIL_BODIES_CHECKPOINT_HPP

#include <larql/checkpoint.hpp>

#include <larql/detail/checkpoint/block_weights.hpp>
#include <larql/detail/checkpoint/files.hpp>
#include <larql/detail/checkpoint/state.hpp>
#include <larql/detail/mla/rows.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/print.hpp>
#include <larql/detail/separate.hpp>
#include <larql/tensor_recipe.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql {

LARQL_INLINE stated_config::stated_config(const nlohmann::json& config) {
    if (!config.is_null()) m_json = std::make_shared<const nlohmann::json>(config);
}

LARQL_INLINE checkpoint checkpoint::open(const std::filesystem::path& path, const open_options& options) {
    auto opened = std::make_shared<detail::checkpoint_state>();
    opened->files = detail::open_checkpoint_files(path);
    opened->read(options);
    return checkpoint(std::move(opened));
}

LARQL_INLINE std::string_view checkpoint::format() const noexcept {
    const detail::checkpoint_files& files = m_state->files;
    if (files.is_vindex) return "vindex";
    return files.gguf ? "gguf" : files.safetensors ? "safetensors" : "";
}

LARQL_INLINE const model_config& checkpoint::config() const& { return m_state->require_config(); }
LARQL_INLINE model_config checkpoint::config() const&& { return m_state->require_config(); }

LARQL_INLINE const model_config* checkpoint::find_config() const noexcept {
    return m_state->config ? &*m_state->config : nullptr;
}

LARQL_INLINE nlohmann::json checkpoint::config_json() const {
    if (!has_gguf_names()) return m_state->config_json;
    (void)config();  // says what is wrong, if anything is
    nlohmann::json printed =
        detail::print_config(*m_state->values, detail::printed_rope(config().blocks), {.file = shard_path(0)});
    if (m_state->files.gguf) detail::print_carried(family(), *m_state->files.gguf, printed);
    return printed;
}

LARQL_INLINE const std::string& checkpoint::path() const& noexcept { return m_state->files.path; }
LARQL_INLINE std::string checkpoint::path() const&& { return m_state->files.path; }

LARQL_INLINE std::span<const tensor_info> checkpoint::tensors() const& noexcept {
    const detail::checkpoint_files& files = m_state->files;
    if (files.gguf) return files.gguf->tensors();
    return files.safetensors ? files.safetensors->tensors() : std::span<const tensor_info>{};
}

LARQL_INLINE std::size_t checkpoint::shard_count() const noexcept {
    const detail::checkpoint_files& files = m_state->files;
    return files.gguf ? files.gguf->shard_count() : files.safetensors ? files.safetensors->shard_count() : 0;
}

LARQL_INLINE std::string checkpoint::shard_path(std::size_t index) const {
    const detail::checkpoint_files& files = m_state->files;
    if (files.gguf) return files.gguf->shard_path(index);
    return files.safetensors ? files.safetensors->shard_path(index) : files.path;
}

LARQL_INLINE std::vector<std::filesystem::path> checkpoint::paths() const {
    const detail::checkpoint_files& files = m_state->files;
    std::vector<std::filesystem::path> all;
    for (std::size_t i = 0; i < shard_count(); ++i) all.push_back(detail::path_from_text(shard_path(i)));
    if (!files.config_path.empty()) all.push_back(detail::path_from_text(files.config_path));
    if (files.safetensors && shard_count() != 0) {
        const std::filesystem::path index =
            detail::path_from_text(shard_path(0)).parent_path() / "model.safetensors.index.json";
        std::error_code ignored;
        if (std::filesystem::exists(index, ignored)) all.push_back(index);
    }
    return all;
}

LARQL_INLINE std::span<const std::byte> checkpoint::bytes(const tensor_info& info) const& {
    const detail::checkpoint_files& files = m_state->files;
    if (files.gguf) return files.gguf->bytes(info);
    (void)weights();
    return files.safetensors->bytes(info);
}

LARQL_INLINE std::shared_ptr<const gguf_file> checkpoint::gguf() const noexcept { return m_state->files.gguf; }

LARQL_INLINE std::shared_ptr<const safetensors_file> checkpoint::safetensors() const noexcept {
    return m_state->files.safetensors;
}

LARQL_INLINE bool checkpoint::has_gguf_names() const noexcept { return m_state->world == detail::naming::gguf; }

LARQL_INLINE const detail::model_values& checkpoint::stated_values() const {
    (void)config();
    return *m_state->values;
}

LARQL_INLINE const weight_reader& checkpoint::weights() const& { return m_state->weights(); }
LARQL_INLINE weight_reader checkpoint::weights() const&& { return m_state->weights(); }

LARQL_INLINE const attention_spec& checkpoint::spec(std::size_t block) const& { return m_state->spec(block); }
LARQL_INLINE attention_spec checkpoint::spec(std::size_t block) const&& { return m_state->spec(block); }

LARQL_INLINE const model_family& checkpoint::family() const {
    (void)config();
    return *m_state->family;
}

LARQL_INLINE const std::string& checkpoint::name_prefix() const& noexcept { return m_state->tensors.prefix(); }
LARQL_INLINE std::string checkpoint::name_prefix() const&& { return m_state->tensors.prefix(); }

LARQL_INLINE std::string checkpoint::tensor_name(tensor_role role, std::size_t block, bool bias) const {
    return m_state->tensors.name_of(is_attention_role(role) ? detail::identity_of(spec(block), role, bias)
                                                            : detail::tensor_identity{role, bias, block, 0});
}

LARQL_INLINE std::optional<tensor_recipe> checkpoint::locate(tensor_role role, std::size_t block) const {
    return m_state->tensors.locate(role, spec(block));
}

LARQL_INLINE bool checkpoint::supports(attention_form form) const {
    return std::ranges::all_of(config().blocks,
                               [&](const attention_spec& block) { return why_not(block, form).empty(); });
}

LARQL_INLINE std::string_view checkpoint::dialect(std::size_t block) const {
    const auto has = [&](tensor_role role) {
        return m_state->tensors.find(detail::identity_of(spec(block), role)) != nullptr;
    };
    const bool whole = has(tensor_role::kv_b);
    const bool split = has(tensor_role::k_b) && has(tensor_role::v_b);
    return detail::dialect_name(whole, split);
}

LARQL_INLINE std::string_view checkpoint::dialect() const {
    const model_config* model = find_config();
    if (model == nullptr || !m_state->reader || model->attention != attention_kind::mla) return "";
    for (std::size_t block = 0; block < model->blocks.size(); ++block)
        if (const std::string_view found = dialect(block); !found.empty()) return found;
    return "";
}

LARQL_INLINE attention_weights<float> checkpoint::stored_weights(std::size_t block) const {
    return m_state->read_block(spec(block), block, weight_storage::from_file);
}

LARQL_INLINE mla_factors<float> checkpoint::factors(std::size_t block) const {
    const attention_spec& block_spec = spec(block);
    detail::require_form(config(), block_spec, attention_form::latent, m_state->files.path);
    detail::require_form(config(), block_spec, attention_form::dense, m_state->files.path);
    attention_weights<float> stored = stored_weights(block);
    return detail::factors_of(stored);
}

LARQL_INLINE attention_layer<float> checkpoint::attention(std::size_t block, attention_form form,
                                                          const layer_options& options) const {
    attention_spec layer = spec(block);
    detail::require_form(config(), layer, form, m_state->files.path);
    if (form == attention_form::latent && layer.form == attention_form::factored) {
        const std::string_view stored = dialect(block);
        layer.form = form;
        layer.latent_from = stored == "k_b+v_b" || stored == "all" ? latent_factors::split : latent_factors::kv_b;
    }
    if (form == layer.form) {
        attention_weights<float> weights = m_state->read_block(layer, block, options.storage);
        return {std::move(layer), std::move(weights)};
    }

    attention_weights<float> stored = m_state->read_block(layer, block, options.storage), taken = stored;
    const mla_factors<float> factors = detail::factors_of(taken);
    const mla_geometry published = layer.geometry;
    dense_mla<float> made = absorb(factors, published, {.threads = options.threads});
    layer.form = form;
    layer.biases = {};
    layer.geometry.order = made.order;
    layer.geometry.pairing = made.pairing;
    detail::reorder_stored_rows(stored, published, detail::head_rows(published, made.order, made.pairing));
    attention_weights<float> weights = to_attention_weights(std::move(made), std::move(stored[tensor_role::o]),
                                                            std::move(stored.bias(tensor_role::o)));
    detail::carry_over(stored, layer, weights);
    return {std::move(layer), std::move(weights)};
}

}  // namespace larql

#endif
