// SPDX-License-Identifier: Apache-2.0
//
// The memory of one attention layer: keys and values of the tokens so far, in the storage type of choice, laid out as
// gqa_attention reads them.
#ifndef LARQL_KV_CACHE_HPP
#define LARQL_KV_CACHE_HPP

#include <larql/detail/attention/cached_rows.hpp>
#include <larql/detail/attention/operand.hpp>
#include <larql/detail/attention/stored_element.hpp>
#include <larql/detail/compressed/shape.hpp>
#include <larql/detail/compressed/state.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/rows_view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace larql {

/// Sizes of a cache.
struct kv_cache_shape {
    std::size_t capacity = 0;            ///< tokens
    std::size_t kv_heads = 0;            ///< G
    std::size_t key_size = 0;            ///< D
    std::size_t value_size = 0;          ///< V
    std::size_t index_size = 0;          ///< Di, of the one key per token of a sparse indexer; 0: none
    std::optional<std::size_t> layer{};  ///< whose keys and values it is for: blocks that share them check it
};

/// Keys and values, and the keys of a sparse indexer if it has one, of up to `capacity` tokens. T is the storage:
/// float, bf16, f16, f8_e4m3 or q8_0_block, whose heads are multiples of 32 (a latent cache's R and P, too).
///
/// Two layouts. Separate: keys [capacity, G, D] and values [capacity, G, V]. Latent (MLA, one head): a single
/// [capacity, 1, R + P] whose first R columns are also the values. Either way keys() and values() are views for
/// gqa_attention, valid until the cache is moved from or destroyed; appending does not invalidate them, but they keep
/// the length they were made with.
///
/// Compressed attention has a third layout, which attention_layer alone fills: see compressed_cache_shape.
///
/// All memory is reserved at the start and not touched before it is used: where the system hands out memory on first
/// use, a large capacity costs nothing. Nothing is allocated afterwards. Move-only: copying gigabytes by accident would
/// be worse than having to say so.
template <class T>
class kv_cache {
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, bf16> || std::is_same_v<T, f16> ||
                      std::is_same_v<T, f8_e4m3> || std::is_same_v<T, q8_0_block>,
                  "larql: kv_cache stores float, larql::bf16, larql::f16, larql::f8_e4m3 or larql::q8_0_block");
    using extents = std::array<std::size_t, 3>;

    static auto make_view(const rows_view<const T>& rows) {
        if constexpr (detail::is_block<T>)
            return rows;
        else
            return xt::adapt(
                rows.data, rows.tokens * rows.heads * rows.size, xt::no_ownership(), rows.shape(),
                extents{static_cast<std::size_t>(rows.token_stride), static_cast<std::size_t>(rows.head_stride), 1});
    }

public:
    using value_type = T;
    /// A read-only view of [size(), G, D or V]: of xtensor, or of blocks a rows_view.
    using view = decltype(make_view({}));

    /// A cache with keys and values apart.
    /// @throws error errc::limit_exceeded if the sizes overflow, std::bad_alloc if the system refuses the memory
    explicit kv_cache(const kv_cache_shape& shape) : m_shape(shape) {
        m_keys = detail::allocate_cached<T>(shape.capacity, shape.kv_heads, shape.key_size);
        m_values = detail::allocate_cached<T>(shape.capacity, shape.kv_heads, shape.value_size);
        if (shape.index_size != 0) m_index = detail::allocate_cached<T>(shape.capacity, 1, shape.index_size);
    }

    /// A latent cache: rows of `latent_size` (R) values followed by `rope_size` (P) rotated key elements.
    /// @param index_size  elements of an indexer's key; 0: none
    [[nodiscard]] static kv_cache latent(std::size_t capacity, std::size_t latent_size, std::size_t rope_size,
                                         std::size_t index_size = 0, std::optional<std::size_t> layer = {}) {
        kv_cache cache;
        if (rope_size > std::numeric_limits<std::size_t>::max() - latent_size)
            detail::fail(errc::limit_exceeded, "row size overflows", {.subject = "kv_cache"});
        detail::require_whole_elements<T>(latent_size, "kv_cache");
        cache.m_shape = {capacity, 1, latent_size + rope_size, latent_size, index_size, layer};
        cache.m_keys = detail::allocate_cached<T>(capacity, 1, latent_size + rope_size);
        if (index_size != 0) cache.m_index = detail::allocate_cached<T>(capacity, 1, index_size);
        return cache;
    }

    /// A cache of compressed attention.
    /// @throws error errc::unsupported_dtype if T is made of blocks
    [[nodiscard]] static kv_cache compressed(const compressed_cache_shape& shape) {
        if constexpr (detail::is_block<T>) {
            detail::fail(errc::unsupported_dtype, "compressed attention keeps no blocks of Q8_0",
                         {.subject = "kv_cache"});
        } else {
            kv_cache cache;
            cache.m_shape = {shape.capacity, 1, shape.head_dim, shape.head_dim};
            cache.m_compressed = std::make_unique<detail::compressed_state<T>>(shape);
            return cache;
        }
    }

    kv_cache(kv_cache&& other) noexcept { swap(other); }  // which is then empty, without capacity
    kv_cache& operator=(kv_cache&& other) noexcept {
        kv_cache taken(std::move(other));
        swap(taken);
        return *this;
    }
    kv_cache(const kv_cache&) = delete;
    kv_cache& operator=(const kv_cache&) = delete;
    ~kv_cache() = default;

    /// Tokens held, and tokens that fit.
    [[nodiscard]] std::size_t size() const noexcept { return is_compressed() ? m_compressed->size() : m_size; }
    [[nodiscard]] std::size_t capacity() const noexcept { return m_shape.capacity; }
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    /// Position of the first token held: as many as drop_front has taken away since the cache was last cleared.
    [[nodiscard]] std::size_t first_position() const noexcept { return m_dropped; }
    /// Position of the next token.
    [[nodiscard]] std::size_t next_position() const noexcept { return m_dropped + size(); }
    /// The furthest that next_position() was since the cache was last empty: beyond it after truncate. Of a cache with
    /// a row for each token.
    [[nodiscard]] std::size_t longest() const noexcept { return std::max(m_longest, m_dropped + m_size); }
    [[nodiscard]] const kv_cache_shape& shape() const noexcept { return m_shape; }
    [[nodiscard]] bool is_latent() const noexcept { return m_values == nullptr && !is_compressed(); }
    [[nodiscard]] bool is_compressed() const noexcept { return m_compressed != nullptr; }
    /// Bytes that one token takes; of compressed attention its share of an entry, rounded up.
    [[nodiscard]] std::size_t bytes_per_token() const noexcept {
        if (is_compressed()) {
            const compressed_cache_shape& shape = m_compressed->shape();
            return shape.ratio == 0 ? 0 : (shape.entry_bytes(shape.ratio, sizeof(T)) + shape.ratio - 1) / shape.ratio;
        }
        const std::size_t heads = m_shape.kv_heads * (m_shape.key_size + (is_latent() ? 0 : m_shape.value_size));
        return width(heads + m_shape.index_size) * sizeof(T);
    }

    /// Bytes that the cache has reserved.
    [[nodiscard]] std::size_t size_bytes() const noexcept {
        return is_compressed() ? m_compressed->size_bytes() : m_shape.capacity * bytes_per_token();
    }

    /// Adds N tokens, rounding to T. Either all are added or, on an error, none.
    ///
    /// @param k  [N, G, D] or [N, G * D], any xtensor expression of float (or double, bf16, f16)
    /// @param v  [N, G, V] or [N, G * V], likewise
    /// @throws error errc::limit_exceeded if the tokens do not fit; errc::shape_mismatch for other shapes, or if the
    ///         cache is latent or has keys of an indexer
    template <class K, class V>
    void append(const K& k, const V& v) {
        require_rows();
        require_no_index();
        append_separate(k, v);
    }

    /// Adds N tokens to a latent cache.
    /// @param rows  [N, 1, R + P] or [N, R + P]
    template <class K>
    void append(const K& rows) {
        require_rows();
        require_no_index();
        append_latent(rows);
    }

    /// As append, to a cache that has keys of an indexer.
    /// @param index     [N, 1, Di] or [N, Di], keys of the indexer
    /// @param keys_etc  k and v, or the rows of a latent cache; nothing if it has keys of an indexer alone, no kv_heads
    template <class I, class... K>
    void append_indexed(const I& index, const K&... keys_etc) {
        require_rows();
        const detail::operand_shape shape = detail::read_operand_shape(index.shape(), 1, "index", "the cache");
        if (shape.size != m_shape.index_size)
            detail::fail(errc::shape_mismatch,
                         detail::concat({"key size ", shape.size, ", the cache has ", m_shape.index_size}),
                         {.subject = "index"});
        check_room(shape.tokens);
        const std::size_t first = m_size;
        detail::store_cached(index, shape, m_index.get() + first * width(m_shape.index_size));
        if constexpr (sizeof...(K) == 0)
            m_size += m_shape.kv_heads == 0 ? shape.tokens : 0;
        else if constexpr (sizeof...(K) == 1)
            append_latent(keys_etc...);
        else
            append_separate(keys_etc...);
        const std::size_t tokens = m_size - first;
        if (tokens == shape.tokens) return;
        m_size = first;
        detail::fail(errc::shape_mismatch, detail::concat({shape.tokens, " tokens, k has ", tokens}),
                     {.subject = "index"});
    }

    /// Keys of the tokens held, [size(), G, D].
    /// @throws error errc::shape_mismatch if the cache is compressed, as then there is no row for each token
    [[nodiscard]] view keys() const { return make_view(key_rows()); }
    /// Values of the tokens held, [size(), G, V]; a prefix of each key when latent.
    [[nodiscard]] view values() const { return make_view(value_rows()); }
    /// Keys of the indexer of the tokens held, [size(), 1, Di].
    [[nodiscard]] view index_keys() const { return make_view(index_rows()); }

    /// The same as plain views of rows, for a batch of sequences.
    [[nodiscard]] rows_view<const T> key_rows() const {
        require_rows();
        return plain_rows(m_keys.get(), m_shape.kv_heads, m_shape.key_size, m_shape.key_size);
    }
    [[nodiscard]] rows_view<const T> value_rows() const {
        require_rows();
        return is_latent() ? plain_rows(m_keys.get(), m_shape.kv_heads, m_shape.key_size, m_shape.value_size)
                           : plain_rows(m_values.get(), m_shape.kv_heads, m_shape.value_size, m_shape.value_size);
    }
    [[nodiscard]] rows_view<const T> index_rows() const {
        return plain_rows(m_index.get(), 1, m_shape.index_size, m_shape.index_size);
    }

    /// Adds tokens [begin, end) of another cache as they are, as when a sequence goes on in two ways, or begins with a
    /// prefix that another has computed. Positions are those of the rows: the prefix of an empty cache begins at 0.
    /// @param other  of the same sizes; not this one
    /// @throws error errc::shape_mismatch if its sizes are others or it is compressed; errc::limit_exceeded if the
    ///         tokens do not fit or `other` does not hold them; errc::bad_value unless the first of them has the
    ///         position that is next here
    void append_from(const kv_cache& other, std::size_t begin, std::size_t end) {
        require_rows();
        other.require_rows();
        const kv_cache_shape &a = m_shape, &b = other.m_shape;
        if (a.kv_heads != b.kv_heads || a.key_size != b.key_size || a.value_size != b.value_size ||
            a.index_size != b.index_size || is_latent() != other.is_latent())
            detail::fail(errc::shape_mismatch, "holds rows of other sizes", {.subject = "append_from"});
        if (begin > end || end > other.m_size)
            detail::fail(
                errc::limit_exceeded,
                detail::concat({"expected tokens of the ", other.m_size, " that are there, got ", begin, " to ", end}),
                {.subject = "append_from"});
        if (begin != end && other.m_dropped + begin != next_position())
            detail::fail(errc::bad_value,
                         detail::concat({"the first has position ", other.m_dropped + begin, ", the next here is ",
                                         next_position()}),
                         {.subject = "append_from"});
        check_room(end - begin);
        for_each_memory([&](memory kv_cache::*rows, std::size_t row) {
            std::copy_n((other.*rows).get() + begin * row, (end - begin) * row, (this->*rows).get() + m_size * row);
        });
        m_longest = std::max(longest(), other.longest());
        m_size += end - begin;
    }

    /// Forgets the oldest tokens; those that stay keep their positions and move to the front of the memory. For
    /// attention whose window has left them behind (attention_layer says how many: `unneeded`).
    /// @throws error errc::limit_exceeded if fewer are held; errc::shape_mismatch if the cache is compressed, which
    ///         does this by itself
    void drop_front(std::size_t tokens) {
        require_rows();
        if (tokens > m_size)
            detail::fail(errc::limit_exceeded, detail::concat({"drop ", tokens, " tokens, holds ", m_size}),
                         {.subject = "kv_cache"});
        const std::size_t kept = m_size - tokens;
        for_each_memory([&](memory kv_cache::*rows, std::size_t row) {
            std::copy_n((this->*rows).get() + tokens * row, kept * row, (this->*rows).get());
        });
        m_longest = longest();
        m_dropped += tokens;
        m_size = kept;
    }

    /// Forgets the tokens from `size` on, as when a draft is rejected.
    /// @throws error errc::limit_exceeded if fewer are held, or if the cache is compressed and does not reach back so
    ///         far; it can always be emptied
    void truncate(std::size_t size) {
        if (size > this->size())
            detail::fail(errc::limit_exceeded, detail::concat({"truncate to ", size, " tokens, holds ", this->size()}),
                         {.subject = "kv_cache"});
        if (is_compressed()) return m_compressed->truncate(size);
        m_longest = size + m_dropped == 0 ? 0 : longest();
        m_size = size;
    }
    /// Forgets everything: the next token has position 0.
    void clear() noexcept {
        m_dropped = 0;
        truncate(0);
    }

    /// For attention_layer: the state of compressed attention, or null.
    [[nodiscard]] detail::compressed_state<T>* compressed_state() noexcept { return m_compressed.get(); }
    [[nodiscard]] const detail::compressed_state<T>* compressed_state() const noexcept { return m_compressed.get(); }

private:
    using memory = detail::cached_memory<T>;

    kv_cache() = default;

    void swap(kv_cache& other) noexcept {
        std::swap(m_shape, other.m_shape);
        std::swap(m_size, other.m_size);
        std::swap(m_longest, other.m_longest);
        std::swap(m_dropped, other.m_dropped);
        m_keys.swap(other.m_keys);
        m_values.swap(other.m_values);
        m_compressed.swap(other.m_compressed);
        m_index.swap(other.m_index);
    }

    void require_no_index() const {
        if (m_shape.index_size != 0)
            detail::fail(errc::shape_mismatch, "has keys of an indexer: append_indexed takes them",
                         {.subject = "kv_cache"});
    }

    template <class K, class V>
    void append_separate(const K& k, const V& v) {
        if (is_latent())
            detail::fail(errc::shape_mismatch, "is latent: append takes one tensor", {.subject = "kv_cache"});
        const std::size_t tokens = check_rows(k, "k", m_shape.key_size);
        const std::size_t value_tokens = check_rows(v, "v", m_shape.value_size);
        if (value_tokens != tokens)
            detail::fail(errc::shape_mismatch, detail::concat({value_tokens, " tokens, k has ", tokens}),
                         {.subject = "v"});
        check_room(tokens);
        store_rows(k, tokens, m_shape.key_size, m_keys);
        store_rows(v, tokens, m_shape.value_size, m_values);
        m_size += tokens;
    }

    template <class K>
    void append_latent(const K& rows) {
        if (!is_latent())
            detail::fail(errc::shape_mismatch, "is not latent: append takes keys and values", {.subject = "kv_cache"});
        const std::size_t tokens = check_rows(rows, "rows", m_shape.key_size);
        check_room(tokens);
        store_rows(rows, tokens, m_shape.key_size, m_keys);
        m_size += tokens;
    }

    /// Behind the rows that are there.
    template <class E>
    void store_rows(const E& e, std::size_t tokens, std::size_t size, const memory& to) {
        detail::store_cached(e, {tokens, m_shape.kv_heads, size}, to.get() + m_size * m_shape.kv_heads * width(size));
    }

    void require_rows() const {
        if (is_compressed())
            detail::fail(errc::shape_mismatch,
                         "is compressed: it has no row for each token, and attention_layer::forward alone fills it",
                         {.subject = "kv_cache"});
    }

    /// Calls use(memory, elements of a token in it) for each memory that there is.
    template <class F>
    void for_each_memory(const F& use) const {
        use(&kv_cache::m_keys, m_shape.kv_heads * width(m_shape.key_size));
        if (m_values != nullptr) use(&kv_cache::m_values, m_shape.kv_heads * width(m_shape.value_size));
        if (m_index != nullptr) use(&kv_cache::m_index, width(m_shape.index_size));
    }

    /// Elements of a row of so many numbers.
    static constexpr std::size_t width(std::size_t numbers) noexcept { return detail::elements_of<T>(numbers); }

    rows_view<const T> plain_rows(const T* data, std::size_t heads, std::size_t row_size, std::size_t columns) const {
        return {.data = data,
                .tokens = m_size,
                .heads = heads,
                .size = columns,
                .token_stride = static_cast<std::ptrdiff_t>(heads * width(row_size)),
                .head_stride = static_cast<std::ptrdiff_t>(width(row_size))};
    }

    template <class E>
    std::size_t check_rows(const E& e, const char* name, std::size_t size) const {
        const detail::operand_shape shape = detail::read_operand_shape(e.shape(), m_shape.kv_heads, name, "the cache");
        if (shape.size != size)
            detail::fail(errc::shape_mismatch, detail::concat({"head size ", shape.size, ", the cache has ", size}),
                         {.subject = name});
        return shape.tokens;
    }

    void check_room(std::size_t tokens) const {
        if (tokens > m_shape.capacity - m_size)
            detail::fail(errc::limit_exceeded,
                         detail::concat({"holds ", m_size, " tokens and ", tokens,
                                         " more do not fit in its capacity of ", m_shape.capacity}),
                         {.subject = "kv_cache"});
    }

    kv_cache_shape m_shape{};
    std::size_t m_size = 0;
    std::size_t m_longest = 0;  // as of the last truncate
    std::size_t m_dropped = 0;
    memory m_keys{};
    memory m_values{};  // null when latent
    std::unique_ptr<detail::compressed_state<T>> m_compressed{};
    memory m_index{};  // null without an indexer
};

}  // namespace larql

#endif
