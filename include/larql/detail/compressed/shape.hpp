// SPDX-License-Identifier: Apache-2.0
//
// Sizes of the memory of a block of compressed attention, which users see through kv_cache.hpp.
#ifndef LARQL_DETAIL_COMPRESSED_SHAPE_HPP
#define LARQL_DETAIL_COMPRESSED_SHAPE_HPP

#include <algorithm>
#include <cstddef>

namespace larql {

/// Tokens that a cache can take back without being asked to: a draft of usual length.
inline constexpr std::size_t default_rollback = 16;

/// Sizes of a cache of compressed attention. Keys of a window and the rows that the next entry is made of take the same
/// memory however long a sequence is; entries grow by one for every `ratio` tokens.
struct compressed_cache_shape {
    std::size_t capacity = 0;  ///< tokens
    std::size_t head_dim = 0;  ///< D
    std::size_t window = 0;    ///< W, above 0
    std::size_t ratio = 0;     ///< m, tokens of an entry; 0: no entries
    bool overlapping = false;  ///< an entry is also made of the m tokens before its own, and rows are twice as wide
    std::size_t index_head_dim = 0;  ///< dI; 0: no indexer
    std::size_t rollback = 0;        ///< tokens that `truncate` can always take back

    /// Tokens whose keys are held: W - 1 for the next token's window, and `rollback`.
    [[nodiscard]] constexpr std::size_t kept_keys() const noexcept { return kept(window - 1); }
    /// Tokens whose rows are held: an open entry's and, if entries overlap, those of the one before; and `rollback`.
    [[nodiscard]] constexpr std::size_t kept_rows() const noexcept {
        return ratio == 0 ? 0 : kept((overlapping ? 2 * ratio : ratio) - 1);
    }
    [[nodiscard]] constexpr std::size_t entries_of(std::size_t tokens) const noexcept {
        return ratio == 0 ? 0 : tokens / ratio;
    }
    [[nodiscard]] constexpr std::size_t entry_capacity() const noexcept { return entries_of(capacity); }
    /// Elements of a token's row for entries of `size` elements: c*size that are summed, and as many gates.
    [[nodiscard]] constexpr std::size_t row_size(std::size_t size) const noexcept {
        return (overlapping ? 4 : 2) * size;
    }

    /// Bytes that do not grow with the sequence: keys of kept_keys() tokens, and rows of kept_rows() tokens in float.
    /// @param element_bytes  of a key's element: 4 for float, 2 for bf16 and f16
    [[nodiscard]] constexpr std::size_t constant_bytes(std::size_t element_bytes) const noexcept {
        return kept_keys() * head_dim * element_bytes +
               kept_rows() * (row_size(head_dim) + row_size(index_head_dim)) * sizeof(float);
    }
    /// Bytes of the entries that so many tokens complete, the indexer's included.
    [[nodiscard]] constexpr std::size_t entry_bytes(std::size_t tokens, std::size_t element_bytes) const noexcept {
        return entries_of(tokens) * (head_dim + index_head_dim) * element_bytes;
    }
    /// Bytes of a cache that holds so many tokens: what of its memory such a sequence needs.
    [[nodiscard]] constexpr std::size_t bytes(std::size_t tokens, std::size_t element_bytes) const noexcept {
        return constant_bytes(element_bytes) + entry_bytes(tokens, element_bytes);
    }

    /// The first token whose key the token at `position` sees in its window.
    [[nodiscard]] constexpr std::size_t first_key(std::size_t position) const noexcept {
        return position + 1 > window ? position + 1 - window : 0;
    }
    /// The first token whose row makes the entry that the token at `position` belongs to; `position` without entries.
    [[nodiscard]] constexpr std::size_t first_row(std::size_t position) const noexcept {
        if (ratio == 0) return position;
        const std::size_t own = position / ratio * ratio;
        return overlapping && own != 0 ? own - ratio : own;
    }

    friend constexpr bool operator==(const compressed_cache_shape&, const compressed_cache_shape&) = default;

private:
    [[nodiscard]] constexpr std::size_t kept(std::size_t tokens) const noexcept {
        return std::max<std::size_t>(std::min(tokens + std::min(rollback, capacity), capacity), 1);
    }
};

}  // namespace larql

#endif
