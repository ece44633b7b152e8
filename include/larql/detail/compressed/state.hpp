// SPDX-License-Identifier: Apache-2.0
//
// What compressed attention remembers of a sequence: the keys of a window, the entries so far, and the rows of the
// tokens that entries to come are made of.
#ifndef LARQL_DETAIL_COMPRESSED_STATE_HPP
#define LARQL_DETAIL_COMPRESSED_STATE_HPP

#include <larql/detail/compressed/shape.hpp>
#include <larql/detail/concat.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

namespace larql::detail {

/// A number as it is stored.
template <class E, class T>
E as_stored(T x) {
    if constexpr (std::is_same_v<E, T>)
        return x;
    else
        return static_cast<E>(static_cast<float>(x));
}

/// Memory that is not touched before it is used.
template <class E>
class reserved_rows {
public:
    reserved_rows() = default;
    /// @throws error errc::limit_exceeded if the size overflows
    reserved_rows(std::size_t rows, std::size_t width) : m_rows(rows), m_width(width) {
        constexpr auto most = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(E);
        if (width != 0 && rows > most / width)
            fail(errc::limit_exceeded, concat({rows, " rows of ", width, " elements exceed the address space"}),
                 {.subject = "kv_cache"});
        const std::size_t bytes = std::max<std::size_t>(rows * width * sizeof(E), 1);
        m_data.reset(static_cast<E*>(::operator new(bytes, std::align_val_t{64})));
    }

    [[nodiscard]] std::size_t size_bytes() const noexcept { return m_rows * m_width * sizeof(E); }
    [[nodiscard]] std::size_t rows() const noexcept { return m_rows; }
    [[nodiscard]] const E* row(std::size_t index) const noexcept { return m_data.get() + index * m_width; }

    /// Writes rows from `first` on, around the end of the memory; of more rows than fit the last remain.
    template <class T>
    void write(std::size_t first, const T* from, std::size_t count) noexcept {
        const std::size_t skipped = count > m_rows ? count - m_rows : 0;
        for (std::size_t i = skipped; i < count; ++i) {
            E* to = m_data.get() + (first + i) % m_rows * m_width;
            for (std::size_t d = 0; d < m_width; ++d) to[d] = as_stored<E>(from[i * m_width + d]);
        }
    }
    /// Reads rows [begin, end) of what was written.
    template <class T>
    void read(std::size_t begin, std::size_t end, T* to) const noexcept {
        for (std::size_t i = begin; i < end; ++i) {
            const E* from = row(i % m_rows);
            for (std::size_t d = 0; d < m_width; ++d) *to++ = static_cast<T>(from[d]);
        }
    }

private:
    struct release {
        void operator()(E* p) const noexcept { ::operator delete(p, std::align_val_t{64}); }
    };
    std::size_t m_rows = 0, m_width = 0;
    std::unique_ptr<E, release> m_data{};
};

/// What N new tokens add: keys [N, D]; for the entries and for the indexer's keys, if there are any, the tokens' rows
/// [N, 2cd] and the entries [n, d] that these tokens complete.
template <class T, class E>
struct compressed_rows {
    std::size_t tokens = 0, entries = 0;
    const E* keys = nullptr;
    const T* made_of[2]{};
    const E* made[2]{};
};

/// The state of one block. E is the type of keys and entries; rows that entries are made of are float, because their
/// gates go through an exponential.
template <class E>
class compressed_state {
public:
    explicit compressed_state(const compressed_cache_shape& shape)
        : m_shape(shape), m_keys(shape.kept_keys(), shape.head_dim) {
        if (shape.ratio == 0) return;
        for (std::size_t i = 0; i < 2; ++i) {
            const std::size_t size = entry_size(i);
            if (size == 0) continue;
            m_rows[i] = {shape.kept_rows(), shape.row_size(size)};
            m_entries[i] = {shape.entry_capacity(), size};
        }
    }

    [[nodiscard]] const compressed_cache_shape& shape() const noexcept { return m_shape; }
    [[nodiscard]] std::size_t size() const noexcept { return m_size; }
    [[nodiscard]] std::size_t entries() const noexcept { return m_shape.entries_of(m_size); }
    [[nodiscard]] std::size_t size_bytes() const noexcept {
        std::size_t sum = m_keys.size_bytes();
        for (std::size_t i = 0; i < 2; ++i) sum += m_rows[i].size_bytes() + m_entries[i].size_bytes();
        return sum;
    }

    /// Keys of tokens [begin, size()), at least those that the next token's window needs.
    void read_keys(std::size_t begin, E* to) const noexcept { m_keys.read(begin, m_size, to); }
    /// Rows of tokens [begin, size()) that the next entry is made of. `which` is 0 for entries, 1 for indexer's keys.
    template <class T>
    void read_rows(std::size_t which, std::size_t begin, T* to) const noexcept {
        m_rows[which].read(begin, m_size, to);
    }
    [[nodiscard]] const E* entry(std::size_t which, std::size_t index) const noexcept {
        return m_entries[which].row(index);
    }

    /// @throws error errc::limit_exceeded if so many more tokens do not fit
    void require_room(std::size_t tokens) const {
        if (tokens > m_shape.capacity - m_size)
            fail(errc::limit_exceeded,
                 concat({"holds ", m_size, " tokens and ", tokens, " more do not fit in its capacity of ",
                         m_shape.capacity}),
                 {.subject = "kv_cache"});
    }

    /// Adds tokens for which there is room.
    template <class T>
    void append(const compressed_rows<T, E>& added) noexcept {
        m_keys.write(m_size, added.keys, added.tokens);
        for (std::size_t i = 0; i < 2; ++i) {
            if (m_rows[i].rows() == 0) continue;
            m_rows[i].write(m_size, added.made_of[i], added.tokens);
            if (added.entries != 0) m_entries[i].write(entries(), added.made[i], added.entries);
        }
        m_size += added.tokens;
        const auto newest = [&](std::size_t rows) { return m_size > rows ? m_size - rows : 0; };
        m_first_key = std::max(m_first_key, newest(m_keys.rows()));
        m_first_row = std::max(m_first_row, newest(m_rows[0].rows()));
    }

    /// Forgets the tokens from `size` on.
    /// @throws error errc::limit_exceeded if what stood before them is no longer there
    void truncate(std::size_t size) {
        const std::size_t key = m_shape.first_key(size), row = m_shape.first_row(size);
        if ((key < size && key < m_first_key) || (row < size && row < m_first_row))
            fail(errc::limit_exceeded,
                 concat({"truncate to ", size, " of ", m_size,
                         " tokens: a window that was left behind is gone; the cache can take back ", m_shape.rollback,
                         " tokens (make_cache's `rollback`)"}),
                 {.subject = "kv_cache"});
        m_size = size;
        m_first_key = std::min(m_first_key, size);
        m_first_row = std::min(m_first_row, size);
    }

private:
    [[nodiscard]] std::size_t entry_size(std::size_t which) const noexcept {
        return which == 0 ? m_shape.head_dim : m_shape.index_head_dim;
    }

    compressed_cache_shape m_shape;
    std::size_t m_size = 0;
    std::size_t m_first_key = 0, m_first_row = 0;  // the oldest tokens whose key, and whose rows, are held
    reserved_rows<E> m_keys;
    reserved_rows<float> m_rows[2]{};
    reserved_rows<E> m_entries[2]{};
};

}  // namespace larql::detail

#endif
