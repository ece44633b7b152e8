// SPDX-License-Identifier: Apache-2.0
//
// The keys and values of the tokens so far, for one attention block.
#ifndef LARQL_KV_CACHE_HPP
#define LARQL_KV_CACHE_HPP

#include <larql/detail/xtensor.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>

#include <array>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace larql {

/// A cache of a fixed capacity that appends without moving what it holds. Move-only.
///
/// Memory for the whole capacity is reserved at once and touched as tokens arrive, so that a large capacity costs
/// address space, not memory. Keys are [S, G, D], values [S, G, V]; in the latent layout one buffer [S, 1, R + P] is
/// the keys, and its first R columns are the values.
///
/// @tparam T  storage: float, double, bf16 or f16; what is appended is converted to it, rounding to nearest
template <class T>
class kv_cache {
public:
    /// @param capacity  tokens
    /// @param kv_heads  G
    /// @param key_dim   D, numbers of a key
    /// @param value_dim V, numbers of a value
    /// @throws error errc::limit_exceeded if the sizes overflow; std::bad_alloc
    kv_cache(std::size_t capacity, std::size_t kv_heads, std::size_t key_dim, std::size_t value_dim)
        : m_capacity(capacity),
          m_kv_heads(kv_heads),
          m_key_dim(key_dim),
          m_value_dim(value_dim),
          m_keys(reserve(capacity, kv_heads, key_dim)),
          m_values(reserve(capacity, kv_heads, value_dim)) {}

    /// The latent layout: keys [latent | rotated], values the latent.
    /// @param rank      R, numbers of the latent
    /// @param rope_dim  P, numbers of the rotated part
    static kv_cache latent(std::size_t capacity, std::size_t rank, std::size_t rope_dim) {
        if (rank > std::numeric_limits<std::size_t>::max() - rope_dim) refuse_size(capacity, rank, rope_dim);
        kv_cache cache(capacity, 1, rank + rope_dim, 0);
        cache.m_value_dim = rank;
        cache.m_latent = true;
        return cache;
    }

    [[nodiscard]] std::size_t size() const noexcept { return m_size; }          ///< tokens held
    [[nodiscard]] std::size_t capacity() const noexcept { return m_capacity; }  ///< tokens that fit
    [[nodiscard]] bool is_latent() const noexcept { return m_latent; }
    /// Bytes that the held tokens take.
    [[nodiscard]] std::size_t size_bytes() const noexcept {
        return m_size * m_kv_heads * (m_key_dim + (m_latent ? 0 : m_value_dim)) * sizeof(T);
    }

    /// Appends tokens.
    /// @param keys    [T, G, D]  any expression of floating-point numbers
    /// @param values  [T, G, V]  likewise
    /// @throws error errc::shape_mismatch; errc::limit_exceeded if they do not fit. Nothing is appended then.
    template <class K, class V>
    void append(const K& keys, const V& values) {
        if (m_latent) fail_layout("keys and values", "keys alone");
        const std::size_t tokens = check(keys, m_key_dim, "keys");
        if (check(values, m_value_dim, "values") != tokens)
            detail::fail(errc::shape_mismatch,
                         "expected " + std::to_string(tokens) + " tokens, got " +
                             std::to_string(static_cast<std::size_t>(values.shape()[0])),
                         {.subject = "values"});
        store(keys, m_keys.get() + m_size * m_kv_heads * m_key_dim);
        store(values, m_values.get() + m_size * m_kv_heads * m_value_dim);
        m_size += tokens;
    }

    /// Appends tokens to the latent layout.
    /// @param keys  [T, 1, R + P]
    /// @throws error as above
    template <class K>
    void append(const K& keys) {
        if (!m_latent) fail_layout("keys alone", "keys and values");
        const std::size_t tokens = check(keys, m_key_dim, "keys");
        store(keys, m_keys.get() + m_size * m_key_dim);
        m_size += tokens;
    }

    /// The keys held, [S, G, D]: a view that later appends do not change and that ends with the cache.
    [[nodiscard]] auto keys() const& { return rows(m_keys.get(), m_key_dim, m_key_dim); }
    auto keys() const&& = delete;
    /// The values held, [S, G, V]: likewise. In the latent layout a view of the keys' memory.
    [[nodiscard]] auto values() const& {
        return rows(m_latent ? m_keys.get() : m_values.get(), m_value_dim, m_latent ? m_key_dim : m_value_dim);
    }
    auto values() const&& = delete;

    /// Forgets all but the first `tokens` tokens.
    /// @throws error errc::limit_exceeded if there are fewer
    void truncate(std::size_t tokens) {
        if (tokens > m_size)
            detail::fail(errc::limit_exceeded,
                         "expected at most " + std::to_string(m_size) + " tokens, got " + std::to_string(tokens),
                         {.subject = "kv_cache::truncate"});
        m_size = tokens;
    }
    void clear() noexcept { m_size = 0; }

private:
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);
    static constexpr std::align_val_t alignment{64};

    struct release {
        void operator()(T* p) const noexcept { ::operator delete(static_cast<void*>(p), alignment); }
    };
    using buffer = std::unique_ptr<T[], release>;

    [[noreturn]] static void refuse_size(std::size_t tokens, std::size_t heads, std::size_t dim) {
        detail::fail(errc::limit_exceeded,
                     std::to_string(tokens) + " tokens of " + std::to_string(heads) + " times " + std::to_string(dim) +
                         " numbers are beyond the address space",
                     {.subject = "kv_cache"});
    }

    // Fresh memory from the system: no element is constructed, so no page is touched.
    static buffer reserve(std::size_t tokens, std::size_t heads, std::size_t dim) {
        std::size_t bytes = sizeof(T);
        for (const std::size_t factor : {tokens, heads, dim}) {
            if (factor != 0 && bytes > std::numeric_limits<std::size_t>::max() / 4 / factor)
                refuse_size(tokens, heads, dim);
            bytes *= factor;
        }
        return buffer(static_cast<T*>(::operator new(bytes, alignment)));
    }

    [[noreturn]] static void fail_layout(const char* got, const char* expected) {
        detail::fail(errc::shape_mismatch, std::string("this layout takes ") + expected + ", got " + got,
                     {.subject = "kv_cache"});
    }

    template <class E>
    [[nodiscard]] std::size_t check(const E& rows, std::size_t dim, std::string_view name) const {
        if (rows.dimension() != 3 || static_cast<std::size_t>(rows.shape()[1]) != m_kv_heads ||
            static_cast<std::size_t>(rows.shape()[2]) != dim)
            detail::fail(errc::shape_mismatch,
                         "expected [tokens, " + std::to_string(m_kv_heads) + ", " + std::to_string(dim) + "], got [" +
                             shape_of(rows) + "]",
                         {.subject = std::string(name)});
        const auto tokens = static_cast<std::size_t>(rows.shape()[0]);
        if (tokens > m_capacity - m_size)
            detail::fail(errc::limit_exceeded,
                         "expected at most " + std::to_string(m_capacity - m_size) + " more tokens, got " +
                             std::to_string(tokens),
                         {.subject = "kv_cache"});
        return tokens;
    }

    template <class E>
    static std::string shape_of(const E& rows) {
        std::string text;
        for (const auto extent : rows.shape())
            text += (text.empty() ? "" : ", ") + std::to_string(static_cast<std::size_t>(extent));
        return text;
    }

    template <class E>
    static void store(const E& rows, T* out) {
        for (auto it = rows.template begin<xt::layout_type::row_major>();
             it != rows.template end<xt::layout_type::row_major>(); ++it)
            ::new (static_cast<void*>(out++)) T(convert(*it));
    }
    template <class U>
    static T convert(const U& value) noexcept {
        if constexpr (std::is_same_v<U, T>)
            return value;
        else if constexpr (std::is_same_v<T, double>)
            return static_cast<double>(value);
        else
            return T(static_cast<float>(value));
    }

    [[nodiscard]] auto rows(const T* data, std::size_t dim, std::size_t row) const {
        // Extents of 1 and 0 have stride 0, as xtensor's own containers have.
        const std::array<std::size_t, 3> shape{m_size, m_kv_heads, dim};
        const std::array<std::ptrdiff_t, 3> strides{m_size > 1 ? static_cast<std::ptrdiff_t>(m_kv_heads * row) : 0,
                                                    m_kv_heads > 1 ? static_cast<std::ptrdiff_t>(row) : 0,
                                                    dim > 1 ? std::ptrdiff_t{1} : 0};
        // xtensor wants the number of elements here, also where rows are further apart.
        return xt::adapt(data, m_size * m_kv_heads * dim, xt::no_ownership(), shape, strides);
    }

    std::size_t m_capacity, m_kv_heads, m_key_dim, m_value_dim;
    std::size_t m_size = 0;
    bool m_latent = false;
    buffer m_keys, m_values;
};

}  // namespace larql

#endif
