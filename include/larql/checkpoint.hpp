// SPDX-License-Identifier: Apache-2.0
//
// One view over a checkpoint, GGUF or safetensors, whatever the dialect: what the model is, its tensors by name, and
// its attention blocks by number as weights that the rest of larql takes.
#ifndef LARQL_CHECKPOINT_HPP
#define LARQL_CHECKPOINT_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_layer.hpp>
#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/detail/separate.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>
#include <larql/linear.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/model_config.hpp>
#include <larql/model_family.hpp>
#include <larql/safetensors.hpp>
#include <larql/tensor_recipe.hpp>
#include <larql/weight_reader.hpp>
#include <larql/weight_storage.hpp>

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql {

namespace detail {
struct checkpoint_state;
struct model_values;
}  // namespace detail

/// A config.json, parsed, or a part of one; or nothing.
class stated_config {
public:
    stated_config() = default;
    stated_config(const nlohmann::json& config);  // NOLINT(google-explicit-constructor): an option's value

    /// Null if nothing is stated.
    [[nodiscard]] const nlohmann::json* json() const noexcept { return m_json.get(); }

private:
    std::shared_ptr<const nlohmann::json> m_json{};
};

/// How a checkpoint is opened.
struct open_options {
    /// What it says replaces what the files say. For containers that have no place for something, such as a GGUF of
    /// architecture "llama" for Mistral's window.
    stated_config config{};
    /// Families beside larql's own, looked up first. Static data: they must outlive the checkpoint.
    std::span<const model_family> families{};
    /// What to do with keys, values and tensors of attention that larql does not understand.
    unknown_policy unknown = unknown_policy::refuse;
};

/// How a block's weights are taken from a checkpoint.
struct layer_options {
    /// Where they stand while the layer computes. By default in the map of the files, which must then stay as they are.
    weight_storage storage = weight_storage::mapped;
    executor* threads = nullptr;  ///< for making a dense form; null: threads of its own
};

/// An open checkpoint: a handle to shared state that never changes. Copies are cheap; weights, readers and layers that
/// were made from one keep the files open by themselves. Any number of threads may use one, or copies, at once.
class checkpoint {
public:
    /// Opens a model.
    ///
    /// @param path  a .gguf file (any shard), a .safetensors file or index, a folder with config.json (or params.json)
    ///              and safetensors, a folder with one GGUF model, a vindex folder that larql wrote, or a folder with
    ///              config.json alone
    /// @throws error as gguf_file::open, safetensors_file::open. What config.json or the metadata say is judged later,
    ///         by `config()`, so that tensors of a model that larql does not implement can be read.
    static checkpoint open(const std::filesystem::path& path, const open_options& options = {});

    // No moves: a handle that was moved from would be one to nothing.
    checkpoint(const checkpoint&) = default;
    checkpoint& operator=(const checkpoint&) = default;

    /// "gguf", "safetensors", "vindex", or "" for a configuration without tensors.
    [[nodiscard]] std::string_view format() const noexcept;

    /// What the model is.
    /// @throws error what parse_model_config or read_model_config said; errc::not_understood for tensors of attention
    ///         that nothing reads; errc::missing_key if nothing says what the model is
    [[nodiscard]] const model_config& config() const&;
    [[nodiscard]] model_config config() const&&;
    /// What the model is, or null if larql cannot tell; `config()` says why. Lives as long as a handle.
    [[nodiscard]] const model_config* find_config() const noexcept;
    /// config.json as it stands in the folder, or as GGUF's metadata imply it, with what the caller's `config`
    /// replaced; null if neither is there.
    /// @throws error errc::unsupported_architecture for GGUF metadata that transformers has no words for
    [[nodiscard]] nlohmann::json config_json() const;

    /// The path that was opened, as the caller gave it.
    [[nodiscard]] const std::string& path() const& noexcept;
    [[nodiscard]] std::string path() const&&;

    [[nodiscard]] std::span<const tensor_info> tensors() const& noexcept;
    std::span<const tensor_info> tensors() const&& = delete;
    [[nodiscard]] std::size_t shard_count() const noexcept;
    [[nodiscard]] std::string shard_path(std::size_t index) const;
    /// Every file that the checkpoint reads from, for programs that must not overwrite their input.
    [[nodiscard]] std::vector<std::filesystem::path> paths() const;
    /// The stored bytes of a tensor of this checkpoint.
    /// @throws error errc::missing_tensor if it has none
    [[nodiscard]] std::span<const std::byte> bytes(const tensor_info& info) const&;
    std::span<const std::byte> bytes(const tensor_info&) const&& = delete;
    /// The GGUF file behind this checkpoint, or null.
    [[nodiscard]] std::shared_ptr<const gguf_file> gguf() const noexcept;
    /// The safetensors behind this checkpoint, or null.
    [[nodiscard]] std::shared_ptr<const safetensors_file> safetensors() const noexcept;

    /// Whether tensors have llama.cpp's names: those of GGUF, but for what larql itself writes in other forms.
    [[nodiscard]] bool has_gguf_names() const noexcept;
    /// What the files state, key by key: what a conversion carries over.
    [[nodiscard]] const detail::model_values& stated_values() const;

    /// Weights by logical name, whatever their quantisation.
    /// @throws error errc::missing_tensor for a configuration without tensors
    [[nodiscard]] const weight_reader& weights() const&;
    [[nodiscard]] weight_reader weights() const&&;

    /// Number of attention blocks of the model. A conversion may hold a part of them: model_config::block_begin, _end.
    [[nodiscard]] std::size_t attention_blocks() const { return config().blocks.size(); }

    /// What a block computes, in the form in which it is stored.
    /// @throws error errc::bad_value for a block that the model does not have
    [[nodiscard]] const attention_spec& spec(std::size_t block) const&;
    [[nodiscard]] attention_spec spec(std::size_t block) const&&;

    /// The row of the model's family.
    [[nodiscard]] const model_family& family() const;
    /// What stands before the names of the model's blocks: "model.", "language_model.model.", ... ; "" for GGUF.
    [[nodiscard]] const std::string& name_prefix() const& noexcept;
    [[nodiscard]] std::string name_prefix() const&&;
    /// The name that a tensor of an attention block has in this checkpoint, or would have, and for other roles that of
    /// a layer; "" if its names have no such tensor.
    [[nodiscard]] std::string tensor_name(tensor_role role, std::size_t block, bool bias = false) const;
    /// How a block's tensor is made from what is stored, or nothing if the checkpoint does not have it.
    [[nodiscard]] std::optional<tensor_recipe> locate(tensor_role role, std::size_t block) const;

    /// How the up-projection of keys and values is stored: "kv_b", "k_b+v_b", "all" (both), or "" (no latent
    /// attention). Every dialect can be read; none needs another download.
    [[nodiscard]] std::string_view dialect() const;
    [[nodiscard]] std::string_view dialect(std::size_t block) const;

    /// Whether all blocks can be computed in a form; why_not says it of one.
    [[nodiscard]] bool supports(attention_form form) const;

    /// The weights of a block in the form in which they are stored. They read from the files as they are used.
    /// @throws error errc::missing_tensor or errc::shape_mismatch naming the tensor; errc::bad_value for a block that
    ///         the checkpoint does not have
    [[nodiscard]] attention_weights<float> stored_weights(std::size_t block) const;

    /// The published factors of a latent-attention block, without its output projection.
    /// @throws error as `stored_weights`; errc::unsupported_architecture if the model is not stored in factors
    [[nodiscard]] mla_factors<float> factors(std::size_t block) const;

    /// A block's attention in a form, ready to compute. It keeps what it reads from: the files, their maps or memory of
    /// its own, whether or not this checkpoint still lives.
    ///
    /// Latent form computes from the published factors: no weight is converted, and none copied unless `storage` says
    /// so. Its heads keep the order and the pairing in which they are stored. Dense form is made here, which takes a
    /// while and the memory of float matrices; what it keeps of the stored weights is its output projection.
    ///
    /// @param form  factored for every model as published; dense and latent for latent attention. A converted
    ///              checkpoint has the one form in which it is stored.
    /// @throws error as `factors`, and errc::unsupported_architecture for a form that the block does not have
    [[nodiscard]] attention_layer<float> attention(std::size_t block, attention_form form,
                                                   const layer_options& options = {}) const;

private:
    explicit checkpoint(std::shared_ptr<const detail::checkpoint_state> opened) : m_state(std::move(opened)) {}

    std::shared_ptr<const detail::checkpoint_state> m_state;
};

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/checkpoint.hpp>
#endif

#endif
