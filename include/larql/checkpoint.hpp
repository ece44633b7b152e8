// SPDX-License-Identifier: Apache-2.0
//
// One view over a checkpoint, GGUF or safetensors, whatever the dialect: what the model is, its tensors by name, and
// its attention blocks by number as weights that the rest of larql takes.
#ifndef LARQL_CHECKPOINT_HPP
#define LARQL_CHECKPOINT_HPP

#include <larql/attention_form.hpp>
#include <larql/detail/checkpoint/files.hpp>
#include <larql/detail/checkpoint/tensor_roles.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/mla_attention.hpp>
#include <larql/mla_geometry.hpp>
#include <larql/model_config.hpp>
#include <larql/safetensors.hpp>
#include <larql/weight_reader.hpp>

#include <cstddef>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql {

/// A latent-attention block as published: the factors and the output projection.
struct published_attention {
    mla_factors<float> factors;
    matrix_input<float> o;       ///< [E, H*V]
    vector_input<float> o_bias;  ///< [E], or none
};

/// An open checkpoint. Move-only. What it hands out (tensor infos, weights, layers) refers to it and ends with it.
class checkpoint {
public:
    /// Opens a model.
    ///
    /// @param path  a .gguf file (any shard), a .safetensors file or index, a folder with config.json and safetensors,
    ///              a folder with one GGUF model, or a folder with config.json alone
    /// @throws error as gguf_file::open, safetensors_file::open. What config.json or the metadata say is judged later,
    ///         by `config()`, so that tensors of a model that larql does not implement can be read.
    static checkpoint open(const std::filesystem::path& path) {
        checkpoint opened;
        opened.m_files = detail::open_checkpoint_files(path);
        opened.read_config();
        return opened;
    }

    /// "gguf", "safetensors", or "" for a configuration without tensors.
    [[nodiscard]] std::string_view format() const noexcept {
        return m_files.gguf ? "gguf" : m_files.safetensors ? "safetensors" : "";
    }

    /// What the model is.
    /// @throws error what parse_model_config or to_config_json said; errc::missing_key if nothing says what it is
    [[nodiscard]] const model_config& config() const& {
        if (!m_config) std::rethrow_exception(m_config_problem);
        return *m_config;
    }
    const model_config& config() const&& = delete;
    /// What the model is, or null if larql cannot tell; `config()` says why.
    [[nodiscard]] const model_config* find_config() const& noexcept { return m_config ? &*m_config : nullptr; }
    const model_config* find_config() const&& = delete;
    /// config.json as it stands in the folder, or as GGUF's metadata imply it; null if neither is there.
    [[nodiscard]] const nlohmann::json& config_json() const& noexcept { return m_config_json; }
    const nlohmann::json& config_json() const&& = delete;

    [[nodiscard]] std::span<const tensor_info> tensors() const& noexcept {
        if (m_files.gguf) return m_files.gguf->tensors();
        return m_files.safetensors ? m_files.safetensors->tensors() : std::span<const tensor_info>{};
    }
    std::span<const tensor_info> tensors() const&& = delete;
    [[nodiscard]] std::size_t shard_count() const noexcept {
        return m_files.gguf          ? m_files.gguf->shard_count()
               : m_files.safetensors ? m_files.safetensors->shard_count()
                                     : 0;
    }
    [[nodiscard]] const std::string& shard_path(std::size_t index) const& {
        if (m_files.gguf) return m_files.gguf->shard_path(index);
        return m_files.safetensors ? m_files.safetensors->shard_path(index) : m_files.path;
    }
    const std::string& shard_path(std::size_t) const&& = delete;
    /// Every file of tensors that the checkpoint reads from, for programs that must not overwrite their input.
    [[nodiscard]] std::vector<std::filesystem::path> paths() const {
        std::vector<std::filesystem::path> all;
        for (std::size_t i = 0; i < shard_count(); ++i) all.emplace_back(shard_path(i));
        return all;
    }
    /// The stored bytes of a tensor.
    [[nodiscard]] std::span<const std::byte> bytes(const tensor_info& info) const& {
        return m_files.gguf ? m_files.gguf->bytes(info) : m_files.safetensors->bytes(info);
    }
    std::span<const std::byte> bytes(const tensor_info&) const&& = delete;
    /// The GGUF file behind this checkpoint, or null.
    [[nodiscard]] const gguf_file* gguf() const& noexcept { return m_files.gguf.get(); }
    const gguf_file* gguf() const&& = delete;
    /// The safetensors behind this checkpoint, or null.
    [[nodiscard]] const safetensors_file* safetensors() const& noexcept { return m_files.safetensors.get(); }
    const safetensors_file* safetensors() const&& = delete;

    /// Weights by logical name, whatever their quantisation.
    [[nodiscard]] const weight_reader& weights() const& {
        if (!m_weights) detail::fail(errc::missing_tensor, "the checkpoint has no tensors", {.file = m_files.path});
        return *m_weights;
    }
    const weight_reader& weights() const&& = delete;

    /// Number of attention blocks that can be computed.
    [[nodiscard]] std::size_t attention_blocks() const { return config().num_hidden_layers; }

    /// The name of a block's tensor, such as "model.layers.0.self_attn.q_a_proj.weight" or "blk.0.attn_q_a.weight".
    [[nodiscard]] std::string tensor_name(attention_role role, std::size_t block,
                                          std::string_view suffix = ".weight") const {
        const detail::role_names& names = detail::names_of(role);
        const std::string prefix = block_prefix(block);
        return prefix + std::string(m_files.gguf ? names.gguf : names.safetensors) + std::string(suffix);
    }

    /// What stands before the names of a block's attention tensors: "blk.0." or "model.layers.0.self_attn.".
    [[nodiscard]] std::string block_prefix(std::size_t block) const {
        if (m_files.gguf) return "blk." + std::to_string(block) + ".";
        return m_prefix + "layers." + std::to_string(block) + ".self_attn.";
    }

    [[nodiscard]] bool contains(attention_role role, std::size_t block, std::string_view suffix = ".weight") const {
        if (m_files.gguf && detail::names_of(role).gguf.empty()) return false;
        return weights().contains(tensor_name(role, block, suffix));
    }

    /// How the up-projection of keys and values is stored: "kv_b", "k_b+v_b", "all" (both), or "" (no latent
    /// attention). Every dialect can be read; none needs another download.
    [[nodiscard]] std::string_view dialect() const {
        if (!m_weights || !m_config || m_config->attention != attention_kind::mla) return "";
        for (std::size_t block = 0; block < m_config->num_hidden_layers; ++block)
            if (const std::string_view found = dialect(block); !found.empty()) return found;
        return "";
    }
    [[nodiscard]] std::string_view dialect(std::size_t block) const {
        const bool whole = contains(attention_role::kv_b, block);
        const bool split = contains(attention_role::k_b, block) && contains(attention_role::v_b, block);
        return whole && split ? "all" : whole ? "kv_b" : split ? "k_b+v_b" : "";
    }

    /// Sizes of the blocks, with the order and pairing of their stored rows.
    [[nodiscard]] mla_geometry geometry() const { return detail::geometry_of(config()); }

    /// The published factors of a latent-attention block; they read from this checkpoint as they are used.
    /// @throws error errc::unsupported_architecture if the model is not stored in factors; errc::missing_tensor or
    ///         errc::shape_mismatch naming the tensor
    [[nodiscard]] mla_factors<float> factors(std::size_t block) const&;
    mla_factors<float> factors(std::size_t) const&& = delete;
    /// The factors together with the output projection.
    [[nodiscard]] published_attention published(std::size_t block) const&;
    published_attention published(std::size_t) const&& = delete;

    /// The tensors of a block in the form in which they are stored; they read from this checkpoint as they are used.
    /// @throws error as `factors`
    [[nodiscard]] attention_tensors<float> stored_tensors(std::size_t block) const&;
    attention_tensors<float> stored_tensors(std::size_t) const&& = delete;

    /// A block's attention in a form.
    ///
    /// @param form  factored for every model as published; dense and latent for latent attention. A converted
    ///              checkpoint has the one form in which it is stored.
    /// @throws error as `factors`, and errc::bad_value for a block or a form that the checkpoint does not have
    [[nodiscard]] attention_layer<float> attention(std::size_t block, attention_form form,
                                                   executor* threads = nullptr) const&;
    attention_layer<float> attention(std::size_t, attention_form, executor* = nullptr) const&& = delete;

private:
    checkpoint() = default;

    void read_config();
    void find_prefix();
    void require_block(std::size_t block) const;
    [[nodiscard]] matrix_input<float> matrix(attention_role role, std::size_t block, std::size_t rows,
                                             std::size_t cols) const;
    [[nodiscard]] vector_input<float> vector(const std::string& name, std::size_t length) const;
    [[nodiscard]] vector_input<float> bias(attention_role role, std::size_t block, std::size_t length) const;
    [[nodiscard]] matrix_input<float> key_value_up(std::size_t block) const;

    detail::checkpoint_files m_files;
    std::optional<weight_reader> m_weights;
    nlohmann::json m_config_json;
    std::optional<model_config> m_config;
    std::exception_ptr m_config_problem;
    std::string m_prefix;  // of safetensors names: "model.", "language_model.model.", ...
};

inline void checkpoint::read_config() {
    try {
        if (m_files.gguf) {
            m_weights.emplace(*m_files.gguf);
            m_config_json = to_config_json(*m_files.gguf);
        } else {
            if (m_files.config_text)
                m_config_json = parse_config_json(*m_files.config_text, {.file = m_files.config_path});
            if (m_files.safetensors) {
                m_weights.emplace(*m_files.safetensors,
                                  m_config_json.is_object()
                                      ? quantization_config::find_in(m_config_json, {.file = m_files.config_path})
                                      : quantization_config{});
                find_prefix();
            }
            if (!m_files.config_text)
                detail::fail(errc::missing_key, "no config.json beside the tensors says what the model is",
                             {.file = m_files.path});
        }
        m_config = parse_model_config(m_config_json,
                                      {.file = m_files.gguf ? m_files.gguf->shard_path(0) : m_files.config_path});
    } catch (const error&) {
        if (m_files.safetensors && !m_weights) m_weights.emplace(*m_files.safetensors);
        m_config_problem = std::current_exception();
    }
}

inline void checkpoint::find_prefix() {
    constexpr std::string_view attention = ".self_attn.";
    for (const tensor_info& info : tensors()) {
        const std::size_t layers = info.name.find("layers.");
        if (layers == std::string_view::npos || info.name.find(attention, layers) == std::string_view::npos) continue;
        m_prefix = std::string(info.name.substr(0, layers));
        return;
    }
    m_prefix = "model.";
}

inline void checkpoint::require_block(std::size_t block) const {
    if (block >= attention_blocks())
        detail::fail(
            errc::bad_value,
            "expected a block from 0 to " + std::to_string(attention_blocks() - 1) + ", got " + std::to_string(block),
            {.file = m_files.path, .subject = "layer"});
}

inline matrix_input<float> checkpoint::matrix(attention_role role, std::size_t block, std::size_t rows,
                                              std::size_t cols) const {
    const std::string name = tensor_name(role, block);
    const weight found = weights().at(name);
    if (found.rows() != rows || found.columns() != cols)
        detail::fail(errc::shape_mismatch,
                     "the configuration implies [" + std::to_string(rows) + ", " + std::to_string(cols) +
                         "], the tensor has " + detail::shape_text(found.shape()),
                     {.file = m_files.path, .subject = name});
    return matrix_input<float>(rows, cols, [found](std::size_t begin, std::size_t end, float* out, std::size_t stride) {
        found.read_rows(begin, end, out, stride);
    });
}

inline vector_input<float> checkpoint::vector(const std::string& name, std::size_t length) const {
    const weight found = weights().at(name);
    if (found.shape().size() != 1 || found.columns() != length)
        detail::fail(errc::shape_mismatch,
                     "the configuration implies [" + std::to_string(length) + "], the tensor has " +
                         detail::shape_text(found.shape()),
                     {.file = m_files.path, .subject = name});
    std::vector<float> values(length);
    found.read_rows(0, 1, values.data(), length);
    return values;
}

inline vector_input<float> checkpoint::bias(attention_role role, std::size_t block, std::size_t length) const {
    const model_config& model = config();
    const bool exists = contains(role, block, ".bias");
    // A published config.json says whether there are biases; GGUF and larql's own files say it by having them.
    if (m_files.safetensors && model.form == attention_form::factored && exists != model.attention_bias)
        detail::fail(errc::missing_tensor,
                     std::string("attention_bias is ") + (model.attention_bias ? "true" : "false") +
                         ", and the tensor is " + (exists ? "there" : "not there"),
                     {.file = m_files.path, .subject = tensor_name(role, block, ".bias")});
    return exists ? vector(tensor_name(role, block, ".bias"), length) : vector_input<float>{};
}

inline matrix_input<float> checkpoint::key_value_up(std::size_t block) const {
    const mla_geometry g = geometry();
    const std::string_view stored = dialect(block);
    if (stored.empty())
        detail::fail(errc::missing_tensor, "neither kv_b nor both of k_b and v_b are there",
                     {.file = m_files.path, .subject = block_prefix(block)});
    if (stored == "kv_b")
        return matrix(attention_role::kv_b, block, g.num_heads * (g.qk_nope_head_dim + g.v_head_dim), g.kv_lora_rank);
    return merge_kv_b(matrix(attention_role::k_b, block, g.num_heads * g.kv_lora_rank, g.qk_nope_head_dim),
                      matrix(attention_role::v_b, block, g.num_heads * g.v_head_dim, g.kv_lora_rank), g);
}

inline mla_factors<float> checkpoint::factors(std::size_t block) const& {
    require_block(block);
    const model_config& model = config();
    if (model.attention != attention_kind::mla || model.form != attention_form::factored)
        detail::fail(errc::unsupported_architecture,
                     model.attention != attention_kind::mla
                         ? "\"" + model.family + "\" has no latent attention: only the factored form"
                         : "the checkpoint is stored in " + std::string(to_string(model.form)) +
                               " form; other forms need the published factors",
                     {.file = m_files.path});
    const mla_geometry g = geometry();
    using enum attention_role;
    mla_factors<float> f;
    if (g.q_lora_rank == 0) {
        f.q = matrix(q, block, g.num_heads * g.qk_head_dim(), g.hidden_size);
    } else {
        f.q_a = matrix(q_a, block, g.q_lora_rank, g.hidden_size);
        f.q_a_bias = bias(q_a, block, g.q_lora_rank);
        f.q_a_norm = vector(tensor_name(q_a_norm, block), g.q_lora_rank);
        f.q_b = matrix(q_b, block, g.num_heads * g.qk_head_dim(), g.q_lora_rank);
    }
    f.kv_a = matrix(kv_a, block, g.kv_lora_rank + g.qk_rope_head_dim, g.hidden_size);
    f.kv_a_bias = bias(kv_a, block, g.kv_lora_rank + g.qk_rope_head_dim);
    f.kv_a_norm = vector(tensor_name(kv_a_norm, block), g.kv_lora_rank);
    f.kv_b = key_value_up(block);
    return f;
}

inline published_attention checkpoint::published(std::size_t block) const& {
    mla_factors<float> stored = factors(block);  // says why, if there are none
    const mla_geometry g = geometry();
    return {std::move(stored), matrix(attention_role::o, block, g.hidden_size, g.num_heads * g.v_head_dim),
            bias(attention_role::o, block, g.hidden_size)};
}

inline attention_tensors<float> checkpoint::stored_tensors(std::size_t block) const& {
    const model_config& model = config();
    const mla_geometry g = geometry();
    using enum attention_role;
    const std::size_t q_rows = g.num_heads * g.qk_head_dim(), k_rows = g.kv_heads() * g.qk_head_dim();
    const std::size_t v_rows = g.kv_heads() * g.v_head_dim, rank = g.kv_lora_rank;
    if (model.attention == attention_kind::mla && model.form == attention_form::factored) {
        published_attention stored = published(block);
        return to_attention_tensors(std::move(stored.factors), std::move(stored.o), std::move(stored.o_bias));
    }
    attention_tensors<float> w;
    w.o = matrix(o, block, g.hidden_size, g.num_heads * g.v_head_dim);
    w.o_bias = bias(o, block, g.hidden_size);
    if (g.q_lora_rank != 0) {
        w.q_a = matrix(q_a, block, g.q_lora_rank, g.hidden_size);
        w.q_a_bias = bias(q_a, block, g.q_lora_rank);
    }
    if (model.form == attention_form::latent) {
        if (g.q_lora_rank != 0)
            w.q_b = matrix(q_b, block, q_rows, g.q_lora_rank);
        else
            w.q = matrix(q, block, q_rows, g.hidden_size);
        w.kv_a = matrix(kv_a, block, rank + g.qk_rope_head_dim, g.hidden_size);
        w.kv_a_bias = bias(kv_a, block, rank + g.qk_rope_head_dim);
        w.k_b = matrix(k_b, block, g.kv_heads() * rank, g.qk_nope_head_dim);
        w.v_b = matrix(v_b, block, v_rows, rank);
        return w;
    }
    w.q = matrix(q, block, q_rows, g.hidden_size);
    w.q_bias = bias(q, block, q_rows);
    w.k = matrix(k, block, k_rows, g.hidden_size);
    w.k_bias = bias(k, block, k_rows);
    w.v = matrix(v, block, v_rows, g.hidden_size);
    w.v_bias = bias(v, block, v_rows);
    if (model.attention == attention_kind::mla) {
        w.kv_a = matrix(kv_a_latent, block, rank, g.hidden_size);
        w.kv_a_bias = bias(kv_a_latent, block, rank);
    }
    return w;
}

inline attention_layer<float> checkpoint::attention(std::size_t block, attention_form form, executor* threads) const& {
    require_block(block);
    const model_config& model = config();
    attention_config layer{.form = form,
                           .geometry = geometry(),
                           .scale = model.attention_scale,
                           .latent_norm_eps = model.latent_norm_eps,
                           .latent_norms = model.attention == attention_kind::mla,
                           .rope = make_rope_table(model.rope)};
    if (form == model.form) return {layer, stored_tensors(block)};
    published_attention stored = published(block);
    const absorb_options options{.threads = threads};
    const auto converted = [&](auto made) {
        layer.geometry.order = made.order;
        layer.geometry.pairing = made.pairing;
        return attention_layer<float>(
            layer, to_attention_tensors(std::move(made), std::move(stored.o), std::move(stored.o_bias)));
    };
    if (form == attention_form::dense) return converted(absorb(stored.factors, layer.geometry, options));
    return converted(absorb_latent(stored.factors, layer.geometry, options));
}

}  // namespace larql

#endif
