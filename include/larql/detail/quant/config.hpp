// SPDX-License-Identifier: Apache-2.0
//
// config.json's quantization_config: what the stored tensors alone cannot say about their scheme.
#ifndef LARQL_DETAIL_QUANT_CONFIG_HPP
#define LARQL_DETAIL_QUANT_CONFIG_HPP

#include <larql/detail/concat.hpp>
#include <larql/error.hpp>
#include <larql/quantization_config.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

/// Reads the members of one JSON object; a null counts as absent, as in Python.
class quant_fields {
public:
    quant_fields(const nlohmann::json& object, std::string path, const error_where& where)
        : m_object(object), m_path(std::move(path)), m_where(where) {
        if (!object.is_object()) wrong("", "an object", object);
    }

    [[nodiscard]] const nlohmann::json* find(std::string_view key) const {
        const auto at = m_object.find(key);
        return at == m_object.end() || at->is_null() ? nullptr : &*at;
    }

    [[nodiscard]] std::string text(std::string_view key) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return {};
        if (!value->is_string()) wrong(key, "a string", *value);
        return value->get<std::string>();
    }

    /// An integer in [low, 2^31); bool and 2.0 are none.
    [[nodiscard]] std::optional<std::int64_t> integer(std::string_view key, std::int64_t low) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return std::nullopt;
        return checked(key, *value, low);
    }

    [[nodiscard]] std::optional<bool> boolean(std::string_view key) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!value->is_boolean()) wrong(key, "true or false", *value);
        return value->get<bool>();
    }

    [[nodiscard]] std::vector<std::string> texts(std::string_view key) const {
        std::vector<std::string> out;
        const nlohmann::json* value = find(key);
        if (value == nullptr) return out;
        if (!value->is_array()) wrong(key, "an array", *value);
        for (const nlohmann::json& item : *value) {
            if (!item.is_string()) wrong(key, "strings", item);
            out.push_back(item.get<std::string>());
        }
        return out;
    }

    /// [rows, columns], both positive, or the text "ROWSxCOLUMNS" of older files.
    [[nodiscard]] std::optional<quantization_config::block_size> block(std::string_view key) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (value->is_string()) return block_from_text(key, value->get_ref<const std::string&>());
        if (!value->is_array() || value->size() != 2) wrong(key, "two numbers", *value);
        return quantization_config::block_size{static_cast<std::uint64_t>(checked(key, (*value)[0], 1)),
                                               static_cast<std::uint64_t>(checked(key, (*value)[1], 1))};
    }

    [[nodiscard]] std::string path_of(std::string_view key) const {
        return key.empty() ? m_path : m_path + "." + std::string(key);
    }
    [[nodiscard]] error_where at(std::string_view key) const {
        error_where place = m_where;
        place.subject = path_of(key);
        return place;
    }

private:
    [[nodiscard]] quantization_config::block_size block_from_text(std::string_view key, const std::string& text) const {
        quantization_config::block_size block;
        const char* const end = text.data() + text.size();
        const auto number = [&](const char* from, std::uint64_t& to) {
            const auto [stop, problem] = std::from_chars(from, end, to);
            return problem == std::errc{} && to >= 1 && to < (std::uint64_t{1} << 31) ? stop : nullptr;
        };
        const char* at = number(text.data(), block.rows);
        if (at != nullptr && at != end && *at == 'x')
            at = number(at + 1, block.columns);
        else
            at = nullptr;
        if (at != end)
            fail(errc::bad_value, "expected two numbers such as 128x128, got " + quoted_name(text), this->at(key));
        return block;
    }
    [[nodiscard]] std::int64_t checked(std::string_view key, const nlohmann::json& value, std::int64_t low) const {
        if (!value.is_number_integer()) wrong(key, "an integer", value);
        constexpr std::int64_t limit = std::int64_t{1} << 31;
        const bool huge = value.is_number_unsigned() && value.get<std::uint64_t>() >= limit;
        if (huge || value.get<std::int64_t>() < low || value.get<std::int64_t>() >= limit)
            fail(errc::bad_value, concat({"expected ", low, " to 2^31 - 1, got ", value.dump()}), at(key));
        return value.get<std::int64_t>();
    }
    [[noreturn]] void wrong(std::string_view key, const std::string& wanted, const nlohmann::json& got) const {
        fail(errc::wrong_type, "expected " + wanted + ", got " + got.type_name(), at(key));
    }

    const nlohmann::json& m_object;
    std::string m_path;
    const error_where& m_where;
};

template <class T>
void add_distinct(std::vector<T>& list, const T& value) {
    if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
}

/// What one entry of config_groups says about its weights.
struct quant_group {
    bool blocks = false;      ///< scales by group or block, not by row or tensor
    bool asymmetric = false;  ///< with zero points
};

/// Reads one entry of compressed-tensors' (and modelopt's) config_groups.
inline quant_group parse_quant_group(const quant_fields& group, quantization_config& out, const error_where& where) {
    if (const std::string format = group.text("format"); !format.empty()) add_distinct(out.formats, format);
    const nlohmann::json* weights = group.find("weights");
    if (weights == nullptr) return {};
    const quant_fields fields(*weights, group.path_of("weights"), where);
    quant_group read;
    if (const auto bits = fields.integer("num_bits", 1)) add_distinct(out.bits, static_cast<std::uint64_t>(*bits));
    if (const auto block = fields.block("block_structure")) {
        add_distinct(out.blocks, *block);
        read.blocks = true;
    } else if (const auto size = fields.integer("group_size", -1); size && *size > 0) {
        add_distinct(out.blocks, {1, static_cast<std::uint64_t>(*size)});
        read.blocks = true;
    }
    read.asymmetric = !fields.boolean("symmetric").value_or(true);
    return read;
}

inline void parse_quant_groups(const quant_fields& fields, quantization_config& out, const error_where& where) {
    const nlohmann::json* groups = fields.find("config_groups");
    if (groups == nullptr) return;
    const quant_fields all(*groups, fields.path_of("config_groups"), where);
    out.asymmetric = out.blocks_only = !groups->empty();
    for (const auto& [name, group] : groups->items()) {
        const quant_group read = parse_quant_group(quant_fields(group, all.path_of(name), where), out, where);
        out.asymmetric = out.asymmetric && read.asymmetric;
        out.blocks_only = out.blocks_only && read.blocks;
    }
}

inline constexpr std::string_view supported_quant_methods[] = {
    "",         "fp8",          "fbgemm_fp8", "mxfp8", "mistral", "compressed-tensors",
    "modelopt", "modelopt_fp4", "mxfp4",      "awq",   "gptq",    "auto-round",
};

inline constexpr std::string_view supported_quant_formats[] = {
    "dense",           "fakequant",       "naive-quantized",      "int-quantized",
    "float-quantized", "pack-quantized",  "mxfp4-pack-quantized", "nvfp4-pack-quantized",
    "mxfp8-quantized", "mixed-precision",
};

inline constexpr std::string_view supported_modelopt_algorithms[] = {
    "",
    "FP8",
    "FP8_PB_WO",
    "FP8_PER_CHANNEL_PER_TOKEN",
    "MXFP4",
    "MXFP8",
    "NVFP4",
    "W4A16_NVFP4",
    "W4A8_NVFP4_FP8",
    "W4A8_MXFP4_FP8",
    "MIXED_PRECISION",
};

/// What the variants of AWQ and GPTQ mean for qweight and qzeros.
struct linear_format {
    std::string_view method;
    std::string_view variant;
    bool awq;             ///< AWQ's layout, otherwise GPTQ's
    bool zeros_less_one;  ///< zero points are stored less one, modulo 2^bits
};

// auto-round: GPTQ_FORMAT, GPTQ_FORMAT_NO_ZP and AWQ_FORMAT in its inference/backend.py, and the names that its
// inference/convert_model.py takes for them.
inline constexpr linear_format linear_formats[] = {
    {"awq", "", true, false},
    {"awq", "gemm", true, false},
    {"gptq", "", false, true},
    {"gptq", "gptq", false, true},
    {"gptq", "gptq_v2", false, false},
    {"auto-round", "", false, true},
    {"auto-round", "auto", false, true},
    {"auto-round", "gptq", false, true},
    {"auto-round", "auto_gptq", false, true},
    {"auto-round", "auto_round:gptq", false, true},
    {"auto-round", "auto_round:auto_gptq", false, true},
    {"auto-round", "auto_round", false, false},
    {"auto-round", "auto_round:gptqmodel", false, false},
    {"auto-round", "awq", true, false},
    {"auto-round", "auto_awq", true, false},
    {"auto-round", "auto_round:awq", true, false},
    {"auto-round", "auto_round:auto_awq", true, false},
};

/// The format of a configuration's packed linear layers, or null.
inline const linear_format* find_linear_format(const quantization_config& config) {
    for (const linear_format& format : linear_formats)
        if (format.method == config.method && format.variant == config.variant) return &format;
    return nullptr;
}

/// auto-round's packing_format, or backend in files from before it was called so. What follows is the kernel that was
/// to run the model, and does not change what is stored.
inline std::string parse_auto_round_format(const quant_fields& fields) {
    std::string name = fields.text("packing_format");
    if (name.empty()) name = fields.text("backend");
    constexpr std::string_view old_spelling = "autoround";
    if (name.starts_with(old_spelling)) name.replace(0, old_spelling.size(), "auto_round");
    for (const std::string_view kernel :
         {":exllamav2", ":exllamav1", ":tritonv2", ":triton", ":marlin", ":cuda", ":gemm"})
        if (name.ends_with(kernel)) {
            name.resize(name.size() - kernel.size());
            break;
        }
    // Its activation kernels store zero points in another way under the same name.
    const auto activation_bits = fields.integer("act_bits", 0);
    if (activation_bits && *activation_bits <= 8) name += concat({" with ", *activation_bits, " bits of activations"});
    if (const std::string type = fields.text("data_type"); !type.empty() && type != "int") name += " of " + type;
    return name;
}

/// GPTQ's checkpoint_format, which newer writers call format.
inline std::string parse_gptq_format(const quant_fields& fields) {
    const std::string name = fields.text("checkpoint_format");
    const std::string other = fields.text("format");
    if (!name.empty() && !other.empty() && name != other)
        fail(errc::bad_value,
             "expected format and checkpoint_format to agree, got " + quoted_name(other) + " and " + quoted_name(name),
             fields.at("checkpoint_format"));
    return name.empty() ? other : name;
}

/// Throws unless the table holds `value`.
template <class Table>
void require_listed(const Table& table, const std::string& value, const char* what, const error_where& where) {
    if (std::find(std::begin(table), std::end(table), value) != std::end(table)) return;
    std::string known;
    for (const std::string_view item : table)
        if (!item.empty()) known += (known.empty() ? "" : ", ") + std::string(item);
    fail(errc::unsupported_dtype,
         std::string(what) + " " + quoted_name(value) + " is not supported; larql reads " + known, where);
}

}  // namespace larql::detail

#endif
