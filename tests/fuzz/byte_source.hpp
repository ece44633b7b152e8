// SPDX-License-Identifier: Apache-2.0
//
// Decisions out of a fuzzer's bytes. A target that builds its input from decisions reaches code that random bytes never
// reach, as they seldom get past the first check of a parser.
#ifndef LARQL_TESTS_FUZZ_BYTE_SOURCE_HPP
#define LARQL_TESTS_FUZZ_BYTE_SOURCE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

namespace larql::testing {

/// Takes bytes from the front. When there are none left every decision is the plain one: the least number, no defect,
/// the first of a list, an empty text; so that short inputs are well-formed ones.
class byte_source {
public:
    byte_source(const std::uint8_t* data, std::size_t size) : m_data(data), m_size(size) {}

    [[nodiscard]] bool empty() const noexcept { return m_size == 0; }

    /// A number in [low, high], from as few bytes as the range needs.
    std::uint64_t number(std::uint64_t low, std::uint64_t high) {
        const std::uint64_t range = high - low;
        std::uint64_t value = 0;
        for (std::uint64_t left = range; left != 0; left >>= 8) value = value << 8 | next();
        return range == UINT64_MAX ? value : low + value % (range + 1);
    }
    std::size_t size(std::size_t low, std::size_t high) { return static_cast<std::size_t>(number(low, high)); }

    /// True for one of so many values, at most 256.
    bool one_in(unsigned chances) { return number(1, chances) == chances; }

    /// One of a list that is not empty.
    template <class List>
    const auto& pick(const List& list) {
        return *(std::begin(list) + static_cast<std::ptrdiff_t>(size(0, std::size(list) - 1)));
    }

    /// Up to `most` bytes.
    std::string text(std::size_t most) { return take(size(0, most)); }

    /// All that is left.
    std::string rest() { return take(m_size); }

    std::string take(std::size_t bytes) {
        const std::size_t count = std::min(bytes, m_size);
        std::string out(reinterpret_cast<const char*>(m_data), count);
        m_data += count;
        m_size -= count;
        return out;
    }

private:
    std::uint8_t next() {
        if (m_size == 0) return 0;
        --m_size;
        return *m_data++;
    }

    const std::uint8_t* m_data;
    std::size_t m_size;
};

}  // namespace larql::testing

#endif
