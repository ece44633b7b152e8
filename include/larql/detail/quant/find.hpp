// SPDX-License-Identifier: Apache-2.0
//
// From the name of a weight to the tensors of a safetensors checkpoint that hold it. The stored tensors decide which
// scheme it is; the configuration says what they cannot (block sizes, widths, GPTQ's zero points) and is checked
// against them. What fits no scheme is refused by name.
#ifndef LARQL_DETAIL_QUANT_FIND_HPP
#define LARQL_DETAIL_QUANT_FIND_HPP

#include <larql/detail/quant/find_linear.hpp>
#include <larql/detail/quant/find_packed.hpp>
#include <larql/detail/quant/find_stored.hpp>
#include <larql/detail/quant/parts.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

/// The weight of this name, or nothing if the checkpoint has none.
inline std::optional<found_weight> find_weight(const std::shared_ptr<const safetensors_file>& file,
                                               const quantization_config& config, std::string_view name) {
    weight_parts p(file, config, name);
    if (const tensor_info* info = p.tensor(p.name())) return find_stored(p, *info);
    if (const tensor_info* info = p.tensor(p.name() + "_packed")) return find_packed(p, *info);
    if (const tensor_info* info = p.tensor(p.name() + "_blocks")) return find_mxfp4_blocks(p, *info, "_scales", true);
    if (const tensor_info* info = p.tensor(p.name() + ".blocks")) return find_mxfp4_blocks(p, *info, ".scales", false);
    if (p.module().empty()) return std::nullopt;
    if (const tensor_info* info = p.tensor(p.module() + ".qweight")) return find_quantised_linear(p, *info);
    p.refuse_foreign();
    return std::nullopt;
}

/// Whether find_weight() would look at tensors of this name.
inline bool stores_weight(const safetensors_file& file, std::string_view name) {
    const std::string text(name);
    for (const char* ending : {"", "_packed", "_blocks", ".blocks"})
        if (file.find_tensor(text + ending) != nullptr) return true;
    constexpr std::string_view ending = ".weight";
    return name.ends_with(ending) &&
           file.find_tensor(text.substr(0, text.size() - ending.size()) + ".qweight") != nullptr;
}

/// The name of the weight that a tensor is a part of, or nothing if it stands for itself.
inline std::optional<std::string> owner_of(const safetensors_file& file, std::string_view name) {
    for (const part_suffix& part : part_suffixes) {
        if (!name.ends_with(part.ending)) continue;
        std::string owner(name.substr(0, name.size() - part.ending.size()));
        owner += part.weight;
        if (stores_weight(file, owner)) return owner;
    }
    return std::nullopt;
}

/// The names of all weights and other tensors, parts left out, in stored order.
inline std::vector<std::string> logical_names(const safetensors_file& file) {
    std::vector<std::string> names;
    for (const tensor_info& info : file.tensors()) {
        const auto owner = owner_of(file, info.name);
        if (!owner)
            names.emplace_back(info.name);
        else if (file.find_tensor(*owner) == nullptr && is_main_part(info.name))
            names.push_back(*owner);
    }
    return names;
}

}  // namespace larql::detail

#endif
