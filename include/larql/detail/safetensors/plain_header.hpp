// SPDX-License-Identifier: Apache-2.0
//
// Headers as they are written: an object of objects without escapes in strings, each with dtype, shape and data_offsets
// and nothing else. They are read by comparing, several times as fast as JSON is parsed: a model in a thousand shards
// has tens of thousands of such entries.
#ifndef LARQL_DETAIL_SAFETENSORS_PLAIN_HEADER_HPP
#define LARQL_DETAIL_SAFETENSORS_PLAIN_HEADER_HPP

#include <larql/detail/io/name_index.hpp>
#include <larql/detail/io/utf8.hpp>
#include <larql/detail/safetensors/contents.hpp>
#include <larql/dtype.hpp>
#include <larql/tensor_info.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

/// Reads such a header, or nothing: any other text, right or wrong, is left to the parser of all JSON, which accepts
/// what is accepted here with the same result, and says what is wrong with the rest.
class plain_safetensors_header {
public:
    /// @return  the tensors in the order of the text, offsets from the start of the data
    static std::optional<safetensors_contents> read(std::string_view text) {
        if (!is_utf8(text)) return std::nullopt;
        plain_safetensors_header reader(text);
        if (!reader.entries() || !reader.m_rest.empty() || reader.repeats_a_name()) return std::nullopt;
        return std::move(reader.m_out);
    }

private:
    explicit plain_safetensors_header(std::string_view text) : m_rest(text) {}

    /// Skips white space and one character, if it comes next.
    bool token(char expected) {
        const std::size_t at = m_rest.find_first_not_of(" \t\n\r");
        if (at == std::string_view::npos || m_rest[at] != expected) return false;
        m_rest.remove_prefix(at + 1);
        return true;
    }

    std::optional<std::string_view> text() { return token('"') ? text_to_quote() : std::nullopt; }
    /// The characters up to the closing quote, which is skipped.
    std::optional<std::string_view> text_to_quote() {
        for (std::size_t i = 0; i < m_rest.size(); ++i) {
            const auto c = static_cast<unsigned char>(m_rest[i]);
            if (c == '\\' || c < 0x20) return std::nullopt;
            if (c != '"') continue;
            const std::string_view found = m_rest.substr(0, i);
            m_rest.remove_prefix(i + 1);
            return found;
        }
        return std::nullopt;
    }

    std::optional<std::uint64_t> number() {
        m_rest.remove_prefix(std::min(m_rest.find_first_not_of(' '), m_rest.size()));
        std::uint64_t value = 0;
        const char* const begin = m_rest.data();
        const auto [end, problem] = std::from_chars(begin, begin + m_rest.size(), value);
        const auto length = static_cast<std::size_t>(end - begin);
        if (problem != std::errc() || (*begin == '0' && length != 1)) return std::nullopt;
        m_rest.remove_prefix(length);
        return value;
    }

    bool entries() {
        if (!token('{')) return false;
        do {
            const auto name = text();
            if (!name || !token(':') || !token('{')) return false;
            if (*name == "__metadata__" ? !metadata() : !entry(*name)) return false;
        } while (token(','));
        return token('}');
    }

    bool metadata() {
        if (std::exchange(m_has_metadata, true)) return false;
        do {
            const auto name = text();
            if (!name || !token(':')) return false;
            const auto value = text();
            if (!value || m_out.metadata.size() == safetensors_max_metadata) return false;
            if (!m_out.metadata.emplace(*name, *value).second) return false;
        } while (token(','));
        return token('}');
    }

    bool entry(std::string_view name) {
        tensor_info info;
        const dtype_traits* traits = nullptr;
        bool has_shape = false, has_offsets = false;
        std::uint64_t begin = 0, end = 0;
        do {  // in any order, each once
            const auto key = text();
            if (!key || !token(':')) return false;
            if (*key == "dtype" && traits == nullptr) {
                const auto type = text();
                if (type) traits = find_safetensors_dtype(*type);
                if (traits == nullptr) return false;
            } else if (*key == "shape" && !std::exchange(has_shape, true)) {
                if (!numbers()) return false;
                info.shape.assign(m_numbers, m_numbers + m_count);
            } else if (*key == "data_offsets" && !std::exchange(has_offsets, true)) {
                if (!numbers() || m_count != 2) return false;
                begin = m_numbers[0];
                end = m_numbers[1];
            } else {
                return false;
            }
        } while (token(','));
        if (!token('}') || traits == nullptr || !has_shape || !has_offsets) return false;
        if (begin > end || stored_bytes(*traits, info.shape) != end - begin) return false;
        info.type = traits->type;
        info.offset = begin;
        info.size_bytes = end - begin;
        info.name = m_out.names->add(name);
        m_out.tensors.push_back(std::move(info));
        return true;
    }

    /// Reads a list of numbers.
    bool numbers() {
        m_count = 0;
        if (!token('[')) return false;
        if (token(']')) return true;
        do {
            const auto next = number();
            if (!next || m_count == safetensors_max_rank) return false;
            m_numbers[m_count++] = *next;
        } while (token(','));
        return token(']');
    }

    [[nodiscard]] bool repeats_a_name() const {
        name_index names;
        return names.build(m_out.tensors.size(), [&](std::size_t i) { return m_out.tensors[i].name; }).has_value();
    }

    std::string_view m_rest;
    safetensors_contents m_out{};
    bool m_has_metadata = false;
    std::uint64_t m_numbers[safetensors_max_rank]{};
    std::size_t m_count = 0;
};

}  // namespace larql::detail

#endif
