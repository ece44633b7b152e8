// SPDX-License-Identifier: Apache-2.0
//
// The memory of a cache, and how rows of any element type get into it.
#ifndef LARQL_DETAIL_ATTENTION_CACHED_ROWS_HPP
#define LARQL_DETAIL_ATTENTION_CACHED_ROWS_HPP

#include <larql/detail/attention/operand.hpp>
#include <larql/detail/attention/stored_element.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/cpu.hpp>
#include <larql/detail/ggml/quantize.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <type_traits>

namespace larql::detail {

struct release_cached {
    void operator()(void* p) const noexcept { ::operator delete(p, std::align_val_t{64}); }
};
/// Elements on the boundaries of cache lines.
template <class T>
using cached_memory = std::unique_ptr<T, release_cached>;

/// Memory that is not touched: where the system hands it out on first use, it costs nothing yet.
/// @throws error errc::limit_exceeded if the sizes overflow, errc::shape_mismatch for rows that are not whole blocks,
///         std::bad_alloc if the system refuses the memory
template <class T>
cached_memory<T> allocate_cached(std::size_t tokens, std::size_t heads, std::size_t size) {
    require_whole_elements<T>(size, "kv_cache");
    std::size_t bytes = sizeof(T);
    for (const std::size_t n : {heads, elements_of<T>(size), tokens}) {
        constexpr auto most = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max());
        if (n != 0 && bytes > most / n)
            fail(errc::limit_exceeded,
                 concat({tokens, " tokens of ", heads, " heads of ", size, " elements exceed ", most, " bytes"}),
                 {.subject = "kv_cache"});
        bytes *= n;
    }
    return cached_memory<T>(static_cast<T*>(::operator new(bytes == 0 ? 1 : bytes, std::align_val_t{64})));
}

/// Encodes one row, block by block.
template <class Element>
void store_cached_row(const Element* from, std::size_t size, q8_0_block* to) {
    constexpr std::size_t each = q8_0_block::elements;
    if constexpr (std::is_same_v<Element, q8_0_block>) {
        std::copy_n(from, elements_of<q8_0_block>(size), to);
    } else if constexpr (std::is_same_v<Element, float>) {
        encode_q8_0(from, reinterpret_cast<std::byte*>(to), size, active_simd_level());
    } else {
        for (std::size_t i = 0; i < size; i += each, ++to) {
            float block[each];
            for (std::size_t d = 0; d < each; ++d) block[d] = number_in<float>(from, i + d);
            encode_q8_0(block, reinterpret_cast<std::byte*>(to), each, active_simd_level());
        }
    }
}

/// Rounds one row to the type of the cache.
template <class Element, class T>
void store_cached_row(const Element* from, std::size_t size, T* to) {
    if constexpr (std::is_same_v<Element, float> && (std::is_same_v<T, f16> || std::is_same_v<T, bf16>)) {
        const auto narrow = std::is_same_v<T, f16> ? narrow_f16 : narrow_bf16;
        narrow(from, reinterpret_cast<std::byte*>(to), size, active_simd_level());
    } else {
        for (std::size_t d = 0; d < size; ++d) to[d] = static_cast<T>(number_in<float>(from, d));
    }
}

/// Stores the rows of an expression one after the other. Rounds once from its precision; lazy arithmetic is evaluated
/// once.
template <class E, class T>
void store_cached(const E& e, const operand_shape& shape, T* to) {
    using element = attention_element_t<E>;
    static_assert(is_attention_element<element>,
                  "larql: a cache takes float, double, larql::bf16, larql::f16, larql::f8_e4m3 or larql::q8_0_block");
    const attention_operand<element> source(e, shape);
    for (std::size_t t = 0; t < shape.tokens; ++t)
        for (std::size_t h = 0; h < shape.heads; ++h, to += elements_of<T>(shape.size))
            store_cached_row(source.rows().row(t, h), shape.size, to);
}

}  // namespace larql::detail

#endif
