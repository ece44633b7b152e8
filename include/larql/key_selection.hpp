// SPDX-License-Identifier: Apache-2.0
//
// Which keys each query token may see: as lists of positions, what a sparse indexer selects and attention takes; as
// bits, for trees of speculated tokens and for images whose tokens see each other.
#ifndef LARQL_KEY_SELECTION_HPP
#define LARQL_KEY_SELECTION_HPP

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace larql {

/// A view of one list of keys for each of T query tokens, which all its heads share; without lists, every token may
/// see every key. Whoever made the arrays owns them.
struct key_list_view {
    std::span<const std::size_t>
        begins{};  ///< [T + 1], from 0 to keys.size(): list t is keys[begins[t] .. begins[t + 1])
    std::span<const std::uint32_t> keys{};  ///< positions from 0, ascending within a list, none twice

    [[nodiscard]] constexpr bool empty() const noexcept { return begins.empty(); }
    [[nodiscard]] constexpr std::size_t tokens() const noexcept { return begins.empty() ? 0 : begins.size() - 1; }
    /// The keys of a token.
    [[nodiscard]] constexpr std::span<const std::uint32_t> of(std::size_t token) const noexcept {
        return keys.subspan(begins[token], begins[token + 1] - begins[token]);
    }
};

/// Lists that own their memory: 4 bytes for each key and token.
struct key_selection {
    std::vector<std::size_t> begins{};  ///< as in the view; empty: no lists, every token may see every key
    std::vector<std::uint32_t> keys{};

    [[nodiscard]] bool empty() const noexcept { return begins.empty(); }
    [[nodiscard]] std::size_t tokens() const noexcept { return view().tokens(); }
    [[nodiscard]] std::span<const std::uint32_t> of(std::size_t token) const noexcept { return view().of(token); }
    /// Valid until the selection changes or ends.
    [[nodiscard]] key_list_view view() const noexcept { return {begins, keys}; }

    /// The lists of tokens [first, first + tokens), such as those of one sequence of a batch; there must be so many.
    [[nodiscard]] key_selection part(std::size_t first, std::size_t tokens) const {
        key_selection made;
        for (std::size_t t = first; t < first + tokens; ++t) made.append(of(t));
        return made;
    }

    /// Adds the list of the next token.
    /// @param list  ascending positions
    void append(std::span<const std::uint32_t> list) {
        if (begins.empty()) begins.push_back(0);
        keys.insert(keys.end(), list.begin(), list.end());
        begins.push_back(keys.size());
    }
};

/// A view of one bit for each of T query tokens and each of some keys that follow each other: whether the token may see
/// the key, if the other rules let it. Keys outside of them follow those rules alone. Whoever made the bits owns them.
struct key_mask_view {
    std::span<const std::uint64_t> bits{};  ///< [T, words()]: of key first_key + j, bit j % 64 of word j / 64
    std::size_t first_key = 0;              ///< row of the first key that has bits
    std::size_t keys = 0;                   ///< keys that have bits

    [[nodiscard]] constexpr bool empty() const noexcept { return keys == 0; }
    /// Words of a token.
    [[nodiscard]] constexpr std::size_t words() const noexcept { return keys / 64 + (keys % 64 != 0 ? 1 : 0); }
    /// Whether the bits, if the key has one, let a token see a key.
    [[nodiscard]] constexpr bool allows(std::size_t token, std::size_t key) const noexcept {
        if (key < first_key || key - first_key >= keys) return true;
        const std::size_t j = key - first_key;
        return (bits[token * words() + j / 64] >> (j % 64) & 1U) != 0;
    }
};

}  // namespace larql

#endif
