// SPDX-License-Identifier: Apache-2.0
//
// What a model is, read from config.json or from GGUF metadata: a few facts of the whole, and for each attention block
// what it computes. Everything that is missing, contradicts itself or is not understood is reported in one error.
#ifndef LARQL_MODEL_CONFIG_HPP
#define LARQL_MODEL_CONFIG_HPP

#include <larql/attention_spec.hpp>
#include <larql/detail/separate.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>
#include <larql/model_family.hpp>

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace larql {

/// A model. Sizes are in elements; 0 means "has none" or "not stated".
struct model_config {
    std::string family;        ///< larql's name for the implementation: "deepseek_v3", "llama", ...
    std::string model_type;    ///< as the file says
    std::string architecture;  ///< transformers' class name, if the file says one
    attention_kind attention = attention_kind::gqa;
    attention_form form = attention_form::factored;  ///< of the weights as stored

    std::size_t hidden_size = 0;        ///< E, model width
    std::size_t num_hidden_layers = 0;  ///< without multi-token-prediction layers
    std::size_t vocab_size = 0;
    std::size_t num_nextn_predict_layers = 0;
    double rms_norm_eps = 1e-6;
    std::size_t unused_chunk_size = 0;      ///< stated, and the model's attention has no chunks
    std::size_t unused_sliding_window = 0;  ///< stated, and no block has a window
    bool attention_bias = false;            ///< some of the attention's projections have biases

    std::vector<attention_spec> blocks;  ///< one for each attention block
    std::size_t block_begin = 0;         ///< blocks that the files hold: a conversion may have left out others
    std::size_t block_end = 0;

    /// The block whose cache a block reads: another that it shares keys and values with, or itself.
    /// @param block  from 0, below blocks.size()
    [[nodiscard]] std::size_t kv_block(std::size_t block) const noexcept {
        if (!blocks[block].kv_layer) return block;
        std::size_t other = block;
        while (other > 0 && blocks[other].layer != *blocks[block].kv_layer) --other;
        return other;
    }

    /// What was passed over because the caller asked for it, a sentence each.
    std::vector<std::string> warnings;
    /// What the container had no place for, so that only `config` options can state it: "" if it loses nothing.
    std::string container_loses;
};

/// What to do with keys, values and tensors of attention that larql does not understand.
enum class unknown_policy : std::uint8_t {
    refuse,  ///< an error that lists them
    ignore,  ///< a warning for each; the results may be wrong
};

/// How a configuration is read.
struct config_options {
    std::span<const model_family> families{};  ///< looked up before larql's own; must outlive what is read with them
    unknown_policy unknown = unknown_policy::refuse;
};

/// Reads a configuration.
///
/// @param config  a config.json, parsed; a model nested in `text_config` or an alias of it is found
/// @param where   what errors name as the file
/// @throws error with every problem in one message: errc::unsupported_architecture for a family that larql does not
///         implement, errc::missing_key, errc::wrong_type, errc::bad_value, errc::shape_mismatch; errc::not_understood
///         for keys and values that may change attention and that no row claims
/// @source transformers 5.24 configuration_*.py, modeling_rope_utils.py
LARQL_INLINE model_config parse_model_config(const nlohmann::json& config, const error_where& where = {},
                                             const config_options& options = {});

/// The JSON of a config.json, strictly read. Python's NaN and Infinity are tolerated and become strings, which a field
/// that is used refuses; containers deeper than 64 levels become null.
/// @throws error errc::corrupt_header or errc::duplicate_name, with the byte
LARQL_INLINE nlohmann::json parse_config_json(std::string_view text, const error_where& where = {});

/// The JSON of a config.json on disk.
/// @throws error as parse_config_json, and errc::io
LARQL_INLINE nlohmann::json read_config_json(const std::filesystem::path& path);

/// Reads the metadata of a GGUF model.
///
/// Sizes of latent attention come from the tensors where there are any, with the metadata as a cross-check, because one
/// metadata key has two meanings (key_length is 192 or 576 for DeepSeek-V3).
///
/// @throws error errc::unsupported_architecture by name; errc::missing_key; errc::not_understood; errc::shape_mismatch
///         ("metadata says X, tensor implies Y")
/// @source llama.cpp conversion/deepseek.py and llama-model.cpp, early 2025 to late 2026
LARQL_INLINE model_config read_model_config(const gguf_file& file, const config_options& options = {});

/// The configuration of a GGUF model as the config.json that transformers would have, as far as GGUF states it.
/// @throws error as read_model_config; errc::unsupported_architecture for what transformers has no words for
LARQL_INLINE nlohmann::json to_config_json(const gguf_file& file, const config_options& options = {});

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/model_config.hpp>
#endif

#endif
