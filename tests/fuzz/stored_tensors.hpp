// SPDX-License-Identifier: Apache-2.0
//
// Tensors taken out of a safetensors file, changed, and put into another.
#ifndef LARQL_TESTS_FUZZ_STORED_TENSORS_HPP
#define LARQL_TESTS_FUZZ_STORED_TENSORS_HPP

#include <larql/safetensors.hpp>
#include <support/safetensors_builder.hpp>

#include "byte_source.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace larql::testing {

struct stored_tensor {
    std::string name, type;
    std::vector<std::uint64_t> shape;
    std::string data;
};

inline std::vector<stored_tensor> read_tensors(const std::filesystem::path& path) {
    const safetensors_file file = safetensors_file::open(path);
    std::vector<stored_tensor> tensors;
    for (const tensor_info& info : file.tensors()) {
        const auto bytes = file.bytes(info);
        tensors.push_back({std::string(info.name), std::string(to_string(info.type)), info.shape,
                           std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())});
    }
    return tensors;
}

inline std::string json_shape(const std::vector<std::uint64_t>& shape) {
    std::string text;
    for (const std::uint64_t n : shape) text += (text.empty() ? "[" : ",") + std::to_string(n);
    return text.empty() ? "[]" : text + "]";
}

inline std::string safetensors_of(const std::vector<stored_tensor>& tensors) {
    safetensors_builder file;
    for (const stored_tensor& t : tensors) file.tensor(t.name, t.type, json_shape(t.shape), t.data);
    return file.build();
}

struct type_name {
    std::string_view name;
    std::uint64_t bits;
};
inline constexpr type_name safetensors_types[] = {
    {"F32", 32},    {"F16", 16}, {"BF16", 16},   {"F64", 64}, {"F8_E4M3", 8}, {"F8_E5M2", 8},
    {"F8_E8M0", 8}, {"F4", 4},   {"F6_E2M3", 6}, {"I8", 8},   {"U8", 8},      {"I16", 16},
    {"U16", 16},    {"I32", 32}, {"U32", 32},    {"I64", 64}, {"U64", 64},    {"BOOL", 8},
};

/// Cuts or repeats the data so that it is as long as type and shape say; nothing for sizes that a test should not make.
inline void fit_data(stored_tensor& t) {
    constexpr std::uint64_t most_bytes = 1 << 20;
    std::uint64_t bits = 8;
    for (const type_name& type : safetensors_types)
        if (type.name == t.type) bits = type.bits;
    for (const std::uint64_t n : t.shape) {
        if (n != 0 && bits > most_bytes * 8 / n) return;
        bits *= n;
    }
    const std::string pattern = t.data.empty() ? std::string("\x3c\x01\x80") : t.data;
    const std::size_t bytes = static_cast<std::size_t>((bits + 7) / 8);
    while (t.data.size() < bytes) t.data += pattern;
    t.data.resize(bytes);
}

/// One defect: another shape, type, name or content, a tensor that is missing, or one more.
inline void damage_tensors(byte_source& from, std::vector<stored_tensor>& tensors) {
    if (tensors.empty()) return;
    const std::size_t at = from.size(0, tensors.size() - 1);
    stored_tensor& t = tensors[at];
    switch (from.number(0, 8)) {
        case 0: tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(at)); return;
        case 1: t.type = from.pick(safetensors_types).name; break;
        case 2:
            if (!t.shape.empty()) t.shape[from.size(0, t.shape.size() - 1)] = from.number(0, 300);
            break;
        case 3:
            if (!t.shape.empty()) {
                std::uint64_t& n = t.shape[from.size(0, t.shape.size() - 1)];
                n = from.one_in(2) ? n + 1 : n == 0 ? 0 : n - 1;
            }
            break;
        case 4: t.shape.insert(t.shape.begin(), from.number(0, 2)); break;
        case 5:
            if (!t.shape.empty()) t.shape.erase(from.one_in(2) ? t.shape.begin() : t.shape.end() - 1);
            break;
        case 6: t.data = from.text(64); break;
        case 7: {
            stored_tensor other = t;
            other.name = from.pick(tensors).name + from.text(4);
            for (char& c : other.name)  // the name goes into JSON as it is
                if (c < ' ' || c == '"' || c == '\\' || c == '\x7f') c = '_';
            for (const stored_tensor& there : tensors)
                if (there.name == other.name) return;
            tensors.push_back(std::move(other));
            return;
        }
        default: {  // bytes within the data: codes, scales, indices of groups
            for (std::size_t n = from.size(1, 8); n != 0 && !t.data.empty(); --n)
                t.data[from.size(0, t.data.size() - 1)] = static_cast<char>(from.number(0, 255));
            return;
        }
    }
    fit_data(t);
}

}  // namespace larql::testing

#endif
