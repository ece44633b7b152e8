// SPDX-License-Identifier: Apache-2.0
//
// One attention call as plain numbers and pointers: what the kernels see once shapes are checked. Letters as
// everywhere in larql: T query tokens, S keys, H query heads, G key/value heads, D key size, V value size.
#ifndef LARQL_DETAIL_ATTENTION_PROBLEM_HPP
#define LARQL_DETAIL_ATTENTION_PROBLEM_HPP

#include <larql/detail/ceil_div.hpp>
#include <larql/executor.hpp>
#include <larql/key_selection.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>

namespace larql::detail {

/// Where rows lie in pages: those of token t in page numbers[t / tokens], as its row t % tokens. Without numbers they
/// lie in one piece.
struct row_pages {
    const std::uint32_t* numbers = nullptr;
    std::size_t tokens = 0;     // of a page
    std::ptrdiff_t stride = 0;  // from one page number to the next, in the unit of the rows' strides

    /// From the first row of all to that of a token.
    [[nodiscard]] std::ptrdiff_t offset(std::size_t token, std::ptrdiff_t token_stride) const noexcept {
        if (numbers == nullptr) return static_cast<std::ptrdiff_t>(token) * token_stride;
        return static_cast<std::ptrdiff_t>(numbers[token / tokens]) * stride +
               static_cast<std::ptrdiff_t>(token % tokens) * token_stride;
    }
    /// Where a run of tokens from `begin` on ends, at `end` or before, whose rows lie one token stride apart.
    [[nodiscard]] std::size_t run_end(std::size_t begin, std::size_t end) const noexcept {
        return numbers == nullptr ? end : std::min(end, (begin / tokens + 1) * tokens);
    }
    [[nodiscard]] bool operator==(const row_pages&) const = default;
};

/// Rows of D contiguous elements: element d of head h of token t is data[t * token_stride + h * head_stride + d], or
/// likewise within the token's page.
template <class E>
struct attention_rows {
    E* data = nullptr;
    std::ptrdiff_t token_stride = 0;
    std::ptrdiff_t head_stride = 0;
    row_pages pages{};

    [[nodiscard]] E* row(std::size_t token, std::size_t head) const noexcept {
        return data + pages.offset(token, token_stride) + static_cast<std::ptrdiff_t>(head) * head_stride;
    }
};

/// Rows of keys or values as they are stored, whatever their type. Strides are in bytes.
struct stored_rows {
    const std::byte* data = nullptr;
    std::ptrdiff_t token_stride = 0;
    std::ptrdiff_t head_stride = 0;
    row_pages pages{};

    stored_rows() = default;
    template <class E>
    explicit stored_rows(const attention_rows<const E>& rows) noexcept
        : data(reinterpret_cast<const std::byte*>(rows.data)),
          token_stride(rows.token_stride * static_cast<std::ptrdiff_t>(sizeof(E))),
          head_stride(rows.head_stride * static_cast<std::ptrdiff_t>(sizeof(E))),
          pages{rows.pages.numbers, rows.pages.tokens, rows.pages.stride * static_cast<std::ptrdiff_t>(sizeof(E))} {}

    [[nodiscard]] const std::byte* row(std::size_t token, std::size_t head) const noexcept {
        return data + pages.offset(token, token_stride) + static_cast<std::ptrdiff_t>(head) * head_stride;
    }
};

/// Rows of results in another type than the arithmetic's. Strides are in bytes.
struct narrowed_rows {
    std::byte* data = nullptr;
    std::ptrdiff_t token_stride = 0;
    std::ptrdiff_t head_stride = 0;
    void (*store)(const float* from, std::byte* to, std::size_t n) = nullptr;

    [[nodiscard]] std::byte* row(std::size_t token, std::size_t head) const noexcept {
        return data + static_cast<std::ptrdiff_t>(token) * token_stride +
               static_cast<std::ptrdiff_t>(head) * head_stride;
    }
};

/// A half-open range of keys.
struct key_range {
    std::size_t begin = 0;
    std::size_t end = 0;
};

/// Which keys a query token may see. Always a range, whose ends never fall as the token rises.
struct attention_mask {
    std::ptrdiff_t first = 0;   // row of keys at the position of token 0; negative when there are more tokens than keys
    std::ptrdiff_t before = 0;  // positions before that of key 0
    std::ptrdiff_t window = 0;  // 0 = no window
    std::ptrdiff_t chunk = 0;   // 0 = no chunks
    std::size_t keys = 0;
    bool causal = true;

    [[nodiscard]] key_range visible(std::size_t token) const noexcept {
        const auto last_key = static_cast<std::ptrdiff_t>(keys);
        const std::ptrdiff_t position = first + static_cast<std::ptrdiff_t>(token);
        std::ptrdiff_t end = causal ? std::clamp<std::ptrdiff_t>(position + 1, 0, last_key) : last_key;
        std::ptrdiff_t begin = window > 0 ? std::clamp<std::ptrdiff_t>(position - window + 1, 0, end) : 0;
        if (chunk > 0 && position + before >= 0) {
            const std::ptrdiff_t first_of_chunk = (position + before) / chunk * chunk - before;
            end = std::clamp<std::ptrdiff_t>(first_of_chunk + chunk, 0, end);
            begin = std::clamp<std::ptrdiff_t>(first_of_chunk, std::min(begin, end), end);
        }
        return {static_cast<std::size_t>(begin), static_cast<std::size_t>(end)};
    }
};

/// Everything about a call but its keys and values. T is the type of the arithmetic.
template <class T>
struct attention_call {
    attention_rows<const T> q{};
    attention_rows<T> out{};
    std::size_t tokens = 0;      // T
    std::size_t keys = 0;        // S
    std::size_t heads = 0;       // H
    std::size_t kv_heads = 0;    // G
    std::size_t key_size = 0;    // D
    std::size_t value_size = 0;  // V
    attention_mask mask{};
    key_list_view lists{};  // of the tokens; empty = all that the mask lets through
    key_mask_view bits{};   // likewise
    double scale = 1.0;
    double softcap = 0.0;          // 0 = none
    const float* sinks = nullptr;  // H logits, or null
    const float* alibi = nullptr;  // H slopes, or null: the score of key j gets slope * (j - position of the token)
    bool v_is_k = false;           // row j of V is the first V elements of row j of K: the same memory
    T* log_sum = nullptr;          // [T, H], or null: gets the logarithm of each row's sum of exponentials
    narrowed_rows narrowed{};      // where results go instead of `out`, if it has data

    /// What a head adds to the score of a key for a token, where there are slopes.
    [[nodiscard]] T distance_bias(std::size_t token, std::size_t head, std::size_t key) const noexcept {
        const std::ptrdiff_t position = mask.first + static_cast<std::ptrdiff_t>(token);
        return static_cast<T>(alibi[head]) * static_cast<T>(static_cast<std::ptrdiff_t>(key) - position);
    }

    [[nodiscard]] std::size_t group() const noexcept { return heads / kv_heads; }
    /// Query rows that share one key/value head. Row r is token r / group(), head r % group() of the group.
    [[nodiscard]] std::size_t rows() const noexcept { return tokens * group(); }
    /// Multiplications and additions without a mask.
    [[nodiscard]] double flops() const noexcept {
        return 2.0 * static_cast<double>(tokens) * static_cast<double>(heads) * static_cast<double>(keys) *
               static_cast<double>(key_size + value_size);
    }
};

/// K and V are the storage of keys and values.
template <class T, class K, class V>
struct attention_problem : attention_call<T> {
    attention_rows<const K> k{};
    attention_rows<const V> v{};
};

/// A grow-only block of memory on cache-line (and vector) boundaries. Its content does not survive growth.
class aligned_buffer {
public:
    static constexpr std::size_t alignment = 64;

    template <class E>
    [[nodiscard]] E* get(std::size_t count) {
        const std::size_t bytes = (count * sizeof(E) + alignment - 1) / alignment * alignment;
        if (bytes > m_bytes) {
            m_data.reset();
            m_bytes = 0;
            m_data.reset(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{alignment})));
            m_bytes = bytes;
        }
        return reinterpret_cast<E*>(m_data.get());
    }
    [[nodiscard]] std::size_t size_bytes() const noexcept { return m_bytes; }

private:
    struct release {
        void operator()(std::byte* p) const noexcept { ::operator delete(p, std::align_val_t{alignment}); }
    };
    std::unique_ptr<std::byte, release> m_data{};
    std::size_t m_bytes = 0;
};

constexpr std::size_t round_up(std::size_t n, std::size_t step) noexcept { return (n + step - 1) / step * step; }

}  // namespace larql::detail

#endif
