// SPDX-License-Identifier: Apache-2.0
//
// Builds the bytes of GGUF files, right and wrong ones. It shares no code with the library.
#ifndef LARQL_TESTS_SUPPORT_GGUF_BUILDER_HPP
#define LARQL_TESTS_SUPPORT_GGUF_BUILDER_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::testing {

/// The little-endian bytes of a number (the tests run on little-endian machines).
template <class T>
std::string le(T value) {
    std::string out(sizeof(T), '\0');
    std::memcpy(out.data(), &value, sizeof(T));
    return out;
}

/// A tensor info and its data. Dimensions as stored, innermost first.
struct gguf_tensor {
    std::string name;
    std::vector<std::uint64_t> ne;
    std::uint32_t type = 0;                     // F32
    std::string data{};                         // empty: as many zeros as `bytes`
    std::uint64_t bytes = 0;                    // used if data is empty
    std::optional<std::uint64_t> offset{};      // otherwise: after the tensor before, aligned
    std::optional<std::uint32_t> dimensions{};  // otherwise: ne.size()
};

class gguf_builder {
public:
    enum type : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

    explicit gguf_builder(std::uint32_t version = 3) : m_version(version) {}

    // Parts that a broken file may want to set.
    std::string magic = "GGUF";
    std::optional<std::uint64_t> tensor_count{};
    std::optional<std::uint64_t> kv_count{};
    std::uint64_t alignment = 32;
    std::string trailing{};
    bool pad_end = true;

    /// A length or count: 32 bits in version 1, 64 later.
    [[nodiscard]] std::string length(std::uint64_t n) const {
        return m_version == 1 ? le(static_cast<std::uint32_t>(n)) : le(n);
    }
    [[nodiscard]] std::string text(std::string_view s) const { return length(s.size()) + std::string(s); }

    /// A metadata entry from its encoded value.
    gguf_builder& kv(std::string_view key, std::uint32_t value_type, const std::string& value) {
        return raw_kv(text(key) + le(value_type) + value);
    }
    gguf_builder& raw_kv(const std::string& bytes) {
        m_entries.push_back(bytes);
        return *this;
    }
    gguf_builder& kv_string(std::string_view key, std::string_view value) { return kv(key, string, text(value)); }
    gguf_builder& kv_array(std::string_view key, std::uint32_t element, std::uint64_t count,
                           const std::string& elements) {
        return kv(key, array, le(element) + length(count) + elements);
    }
    /// split.no, split.count and split.tensors.count as llama.cpp's gguf-split writes them.
    gguf_builder& split(std::uint16_t number, std::uint16_t count, std::int32_t tensors) {
        return kv("split.no", u16, le(number))
            .kv("split.count", u16, le(count))
            .kv("split.tensors.count", i32, le(tensors));
    }

    gguf_builder& tensor(gguf_tensor t) {
        if (!t.data.empty()) t.bytes = t.data.size();
        m_tensors.push_back(std::move(t));
        return *this;
    }
    /// An F32 tensor.
    gguf_builder& floats(std::string name, std::vector<std::uint64_t> ne, const std::vector<float>& values) {
        std::string data;
        for (const float v : values) data += le(v);
        return tensor({.name = std::move(name), .ne = std::move(ne), .data = std::move(data)});
    }

    /// Everything before the data's padding.
    [[nodiscard]] std::string header() const {
        std::string out = magic + le(m_version) + length(tensor_count.value_or(m_tensors.size())) +
                          length(kv_count.value_or(m_entries.size()));
        for (const std::string& entry : m_entries) out += entry;
        std::uint64_t next = 0;
        for (const gguf_tensor& t : m_tensors) {
            out += text(t.name) + le(t.dimensions.value_or(static_cast<std::uint32_t>(t.ne.size())));
            for (const std::uint64_t n : t.ne) out += length(n);
            out += le(t.type) + le(t.offset.value_or(next));
            next += up(t.bytes);
        }
        return out;
    }

    [[nodiscard]] std::string build() const {
        std::string out = header();
        if (!m_tensors.empty()) out.resize(up(out.size()), '\0');
        for (std::size_t i = 0; i < m_tensors.size(); ++i) {
            const gguf_tensor& t = m_tensors[i];
            out += t.data.empty() ? std::string(t.bytes, '\0') : t.data;
            if (pad_end || i + 1 < m_tensors.size()) out.resize(up(out.size()), '\0');
        }
        return out + trailing;
    }

private:
    [[nodiscard]] std::uint64_t up(std::uint64_t n) const { return (n + alignment - 1) / alignment * alignment; }

    std::uint32_t m_version;
    std::vector<std::string> m_entries{};
    std::vector<gguf_tensor> m_tensors{};
};

}  // namespace larql::testing

#endif
