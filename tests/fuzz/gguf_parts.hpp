// SPDX-License-Identifier: Apache-2.0
//
// A GGUF file taken apart: its entries and tensors as they are stored, to be changed and built again. For files of
// tests/data, which are right: nothing is checked.
#ifndef LARQL_TESTS_FUZZ_GGUF_PARTS_HPP
#define LARQL_TESTS_FUZZ_GGUF_PARTS_HPP

#include <support/gguf_builder.hpp>

#include "byte_source.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::testing {

struct gguf_parts {
    struct entry {
        std::string key;
        std::uint32_t type;
        std::string value;  // encoded
    };
    std::vector<entry> entries;
    std::vector<gguf_tensor> tensors;

    [[nodiscard]] std::string build() const {
        gguf_builder file;
        for (const entry& e : entries) file.kv(e.key, e.type, e.value);
        for (const gguf_tensor& t : tensors) file.tensor(t);
        return file.build();
    }
};

/// Reads version 3 with the usual alignment.
class gguf_splitter {
public:
    explicit gguf_splitter(std::string_view bytes) : m_bytes(bytes) {}

    gguf_parts split() {
        m_at = 8;
        gguf_parts parts;
        const auto tensors = take<std::uint64_t>(), entries = take<std::uint64_t>();
        for (std::uint64_t i = 0; i < entries; ++i) {
            std::string key = text();
            const auto type = take<std::uint32_t>();
            const std::size_t begin = m_at;
            skip(type);
            parts.entries.push_back({std::move(key), type, std::string(m_bytes.substr(begin, m_at - begin))});
        }
        for (std::uint64_t i = 0; i < tensors; ++i) {
            gguf_tensor t;
            t.name = text();
            t.ne.resize(take<std::uint32_t>());
            for (std::uint64_t& n : t.ne) n = take<std::uint64_t>();
            t.type = take<std::uint32_t>();
            t.offset = take<std::uint64_t>();
            parts.tensors.push_back(std::move(t));
        }
        take_data(parts);
        return parts;
    }

private:
    template <class T>
    T take() {
        T value;
        std::memcpy(&value, m_bytes.data() + m_at, sizeof value);
        m_at += sizeof value;
        return value;
    }
    std::string text() {
        const auto length = static_cast<std::size_t>(take<std::uint64_t>());
        m_at += length;
        return std::string(m_bytes.substr(m_at - length, length));
    }
    void skip(std::uint32_t type) {
        constexpr std::size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
        if (type == gguf_builder::string) {
            (void)text();
        } else if (type == gguf_builder::array) {
            const auto element = take<std::uint32_t>();
            for (auto n = take<std::uint64_t>(); n != 0; --n) skip(element);
        } else {
            m_at += sizes[type];
        }
    }
    /// Up to the next tensor, its padding included: builders pad by the same rule.
    void take_data(gguf_parts& parts) const {
        const std::size_t begin = (m_at + 31) / 32 * 32;
        std::vector<std::uint64_t> ends{m_bytes.size() - begin};
        for (const gguf_tensor& t : parts.tensors) ends.push_back(*t.offset);
        std::ranges::sort(ends);
        for (gguf_tensor& t : parts.tensors) {
            const std::uint64_t end = *std::ranges::upper_bound(ends, *t.offset);
            t.data =
                m_bytes.substr(begin + static_cast<std::size_t>(*t.offset), static_cast<std::size_t>(end - *t.offset));
            t.offset.reset();
        }
    }

    std::string_view m_bytes;
    std::size_t m_at = 0;
};

/// An encoded value of any type, at the edges of what keys take.
inline void damage_value(byte_source& from, gguf_parts::entry& e) {
    constexpr std::uint64_t integers[] = {0, 1, 2, 3, 4, 8, 16, 64, 128, 1048576, 1048577, 4294967295, UINT64_MAX};
    constexpr float floats[] = {0.0F,
                                1.0F,
                                -1.0F,
                                1e30F,
                                4.0F,
                                40.0F,
                                10000.0F,
                                0.0707F,
                                1e-38F,
                                1.0000001F,
                                __builtin_nanf(""),
                                __builtin_inff()};
    constexpr const char* texts[] = {"", "x", "yarn", "linear", "longrope", "none", "llama", "deepseek2"};
    const std::uint64_t n = from.one_in(3) ? from.number(0, UINT64_MAX) : from.pick(integers);
    const float f = from.pick(floats);
    const auto number = [&](std::uint32_t type, const std::string& value) {
        e.type = type;
        e.value = value;
    };
    switch (from.number(0, 9)) {
        case 0: number(gguf_builder::u64, le(n)); break;
        case 1: number(gguf_builder::i32, le(static_cast<std::int32_t>(n))); break;
        case 2: number(gguf_builder::f32, le(f)); break;
        case 3: number(gguf_builder::f64, le(from.one_in(2) ? 1e308 : static_cast<double>(f))); break;
        case 4: {
            const std::string text = from.one_in(3) ? from.text(20) : from.pick(texts);
            number(gguf_builder::string, le(static_cast<std::uint64_t>(text.size())) + text);
            break;
        }
        case 5: {
            std::string elements;
            const std::uint64_t count = from.number(0, 4);
            for (std::uint64_t i = 0; i < count; ++i) elements += le(static_cast<std::uint32_t>(from.number(0, 9)));
            number(gguf_builder::array, le(std::uint32_t{gguf_builder::u32}) + le(count) + elements);
            break;
        }
        case 6: number(gguf_builder::boolean, std::string(1, static_cast<char>(from.number(0, 2)))); break;
        default: number(gguf_builder::u32, le(static_cast<std::uint32_t>(n)));
    }
}

}  // namespace larql::testing

#endif
