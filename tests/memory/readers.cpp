// SPDX-License-Identifier: Apache-2.0
//
// Reads headers whole, cut and changed, for tools that watch what a program does with memory (valgrind,
// MemorySanitizer) and take twenty times as long:  readers TOOL STEP FILE...   every STEP-th byte of each file's
// header; TOOL is what watches.
#include <larql/detail/gguf/parse.hpp>
#include <larql/detail/io/json.hpp>
#include <larql/detail/safetensors/header.hpp>
#include <larql/detail/safetensors/index.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace {

/// A sum of all that was read, so that no byte of it goes unlooked at.
std::uint64_t sum = 0;
int read_whole = 0, refused = 0;

void look_at(const std::vector<larql::tensor_info>& tensors) {
    for (const larql::tensor_info& t : tensors) {
        for (const char c : t.name) sum += static_cast<unsigned char>(c);
        for (const std::uint64_t extent : t.shape) sum += extent;
        sum += t.offset + t.size_bytes + static_cast<std::uint64_t>(t.type);
    }
}

void look_at(const larql::gguf_value& value) {
    for (const std::byte b : value.bytes()) sum += std::to_integer<std::uint64_t>(b);
    if (value.is_array() && value.element_type() == larql::gguf_type::string)
        for (const std::string& text : value.to<std::vector<std::string>>()) sum += text.size();
}

void read(std::string_view text, const std::string& name) {
    // A copy of its own and of its size, so that every byte beyond it is watched.
    const auto bytes = std::make_unique<std::byte[]>(text.size());
    std::memcpy(bytes.get(), text.data(), text.size());
    const std::span<const std::byte> all(bytes.get(), text.size());
    if (name.ends_with(".gguf")) {
        const auto contents = larql::detail::gguf_parser(all, name).parse();
        look_at(contents.tensors);
        for (const larql::gguf_entry& entry : contents.entries) look_at(entry.value);
    } else if (name.ends_with(".safetensors")) {
        look_at(larql::detail::parse_safetensors(all.size(), name, [&](std::uint64_t offset, std::span<std::byte> to) {
                    std::memcpy(to.data(), all.data() + offset, to.size());
                }).tensors);
    } else if (name.ends_with(".index.json")) {
        sum += larql::detail::parse_safetensors_index(text, name).weight_map.size();
    } else {
        sum += larql::detail::parse_json(text, {.file = name}).dump().size();
    }
}

void attempt(std::string_view text, const std::string& name) {
    try {
        read(text, name);
        ++read_whole;
    } catch (const larql::error& e) {
        for (const char* c = e.what(); *c != '\0'; ++c) sum += static_cast<unsigned char>(*c);
        ++refused;
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 4) return 2;
    const auto step = static_cast<std::size_t>(std::atoi(arguments[2]));
    for (int i = 3; i < count; ++i) {
        const std::string name = arguments[i];
        std::FILE* file = std::fopen(name.c_str(), "rb");
        if (file == nullptr || step == 0) return 2;
        std::string text(std::size_t{1} << 20, '\0');
        text.resize(std::fread(text.data(), 1, text.size(), file));
        std::fclose(file);
        attempt(text, name);
        for (std::size_t at = 0; at < std::min<std::size_t>(text.size(), 6000); at += step) {
            attempt(std::string_view(text).substr(0, at), name);
            const char before = text[at];
            text[at] = static_cast<char>(before ^ 1 << (at / step) % 8);
            attempt(text, name);
            text[at] = before;
        }
    }
    std::printf("tried: headers cut and changed, their readers watched by %s | %d read, %d refused | none |\n",
                arguments[1], read_whole, refused);
    std::printf("sum of all that was read: %llu\n", static_cast<unsigned long long>(sum));
    return read_whole > 1 && refused > 1 ? 0 : 1;
}
