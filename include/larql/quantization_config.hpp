// SPDX-License-Identifier: Apache-2.0
//
// What a configuration says of how weights are quantised.
#ifndef LARQL_QUANTIZATION_CONFIG_HPP
#define LARQL_QUANTIZATION_CONFIG_HPP

#include <larql/detail/separate.hpp>
#include <larql/error.hpp>

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace larql {

/// How a checkpoint's weights are quantised, as its configuration says. Empty: nothing is known.
struct quantization_config {
    /// Elements of a weight that share a scale.
    struct block_size {
        std::uint64_t rows = 1;
        std::uint64_t columns = 1;
        friend bool operator==(const block_size&, const block_size&) = default;
    };

    std::string method{};                ///< quant_method: "fp8", "compressed-tensors", "awq", ...; "" if there is none
    std::vector<std::string> formats{};  ///< compressed-tensors' formats, of the model and of its groups
    std::string variant{};  ///< AWQ's version, GPTQ's checkpoint_format, auto-round's packing_format, or quant_algo
    std::vector<block_size> blocks{};          ///< weight_block_size, block_structure, [1, group_size] of each group
    bool blocks_only = false;                  ///< every quantised weight has scales by one of `blocks`
    std::vector<std::uint64_t> bits{};         ///< code widths of the weights, one for each distinct
    std::optional<std::int64_t> group_size{};  ///< AWQ, GPTQ: inputs that share a scale; -1: all of them
    std::optional<bool> symmetric{};           ///< GPTQ's sym: every zero point is 2^(bits - 1)
    bool asymmetric = false;                   ///< every group of weights has zero points
    bool transformed = false;                  ///< weights are stored rotated (transform_config, rotation_config)
    std::vector<std::string> ignore{};         ///< modules left unquantised; for information: the stored tensors decide

    /// From the quantization_config object, from hf_quant_config.json or from params.json's quantization object.
    /// A null and an empty object give an empty configuration.
    /// @throws error wrong_type or bad_value naming the key, missing_key without quant_method
    static quantization_config parse(const nlohmann::json& object, const error_where& where = {});

    /// From a whole config.json or params.json: quantization_config or compression_config, at the top or in
    /// text_config, or quantization. Empty if there is none.
    static quantization_config find_in(const nlohmann::json& config, const error_where& where = {});

    /// Refuses, by name, schemes whose tensors larql does not decode.
    /// @throws error unsupported_dtype
    void require_supported(const error_where& where) const;
};

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/quantization_config.hpp>
#endif

#endif
