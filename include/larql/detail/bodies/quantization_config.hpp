// SPDX-License-Identifier: Apache-2.0
//
// The bodies of quantization_config.hpp.
#ifndef LARQL_DETAIL_BODIES_QUANTIZATION_CONFIG_HPP
#define LARQL_DETAIL_BODIES_QUANTIZATION_CONFIG_HPP

#include <larql/detail/quant/config.hpp>
#include <larql/detail/separate.hpp>
#include <larql/error.hpp>
#include <larql/quantization_config.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace larql {

LARQL_INLINE quantization_config quantization_config::parse(const nlohmann::json& object, const error_where& where) {
    quantization_config out;
    if (object.is_null()) return out;
    const detail::quant_fields fields(object, where.subject.empty() ? "quantization_config" : where.subject, where);
    out.method = fields.text("quant_method");
    if (out.method.empty()) {
        if (const nlohmann::json* inner = fields.find("quantization")) {  // hf_quant_config.json
            error_where place = where;
            place.subject = fields.path_of("quantization");
            return parse(*inner, place);
        }
        if (fields.find("quant_algo") != nullptr)
            out.method = "modelopt";
        else if (fields.find("qformat_weight") != nullptr)
            out.method = "mistral";
        else if (fields.find("bits") != nullptr && fields.find("group_size") != nullptr)
            out.method = "mlx";  // the only one that leaves its name out; refused when a weight is asked for
        else if (object.empty())
            return out;
        else
            detail::fail(errc::missing_key, "expected the name of a quantisation method, got none",
                         fields.at("quant_method"));
    }
    if (const std::string format = fields.text("format"); !format.empty() && out.method == "compressed-tensors")
        out.formats.push_back(format);
    for (const char* name : {"auto_round", "intel/auto-round"})
        if (out.method == name) out.method = "auto-round";
    if (out.method == "auto-round")
        out.variant = detail::parse_auto_round_format(fields);
    else if (out.method == "gptq")
        out.variant = detail::parse_gptq_format(fields);
    for (const char* key : {"quant_algo", "version", "qformat_weight"})
        if (out.variant.empty() && out.method != "auto-round" && out.method != "gptq") out.variant = fields.text(key);
    if (out.method == "awq" || out.method == "gptq")
        for (char& c : out.variant)
            if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (const auto bits = fields.integer("bits", 1)) detail::add_distinct(out.bits, static_cast<std::uint64_t>(*bits));
    out.group_size = fields.integer("group_size", -1);
    out.symmetric = fields.boolean("sym");
    detail::parse_quant_groups(fields, out, where);
    if (const auto block = fields.block("weight_block_size")) {
        detail::add_distinct(out.blocks, *block);
        out.blocks_only = true;
    }
    for (const char* key : {"transform_config", "rotation_config", "spinquant_config"})
        if (const nlohmann::json* transform = fields.find(key))
            out.transformed = out.transformed || !transform->empty();
    for (const char* key : {"ignore", "modules_to_not_convert", "exclude_modules", "ignored_layers"})
        for (std::string& name : fields.texts(key)) out.ignore.push_back(std::move(name));
    return out;
}

LARQL_INLINE quantization_config quantization_config::find_in(const nlohmann::json& config, const error_where& where) {
    if (!config.is_object()) return {};
    for (const char* key : {"quantization_config", "compression_config", "quantization"}) {
        const auto at = config.find(key);
        if (at == config.end() || at->is_null()) continue;
        error_where place = where;
        place.subject = key;
        return parse(*at, place);
    }
    const auto text = config.find("text_config");
    return text != config.end() ? find_in(*text, where) : quantization_config{};
}

LARQL_INLINE void quantization_config::require_supported(const error_where& where) const {
    detail::require_listed(detail::supported_quant_methods, method, "quant_method", where);
    for (const std::string& format : formats)
        detail::require_listed(detail::supported_quant_formats, format, "compressed-tensors format", where);
    if (method == "modelopt" || method == "modelopt_fp4")
        detail::require_listed(detail::supported_modelopt_algorithms, variant, "quant_algo", where);
    if (method == "awq" || method == "gptq" || method == "auto-round") {
        std::vector<std::string_view> known;
        for (const detail::linear_format& format : detail::linear_formats)
            if (format.method == method) known.push_back(format.variant);
        detail::require_listed(known, variant,
                               method == "awq"    ? "AWQ version"
                               : method == "gptq" ? "GPTQ checkpoint_format"
                                                  : "auto-round packing_format",
                               where);
    }
    if (transformed)
        detail::fail(errc::unsupported_dtype,
                     "transform_config (or rotation_config) is not supported: the weights are stored rotated", where);
}

}  // namespace larql

#endif
