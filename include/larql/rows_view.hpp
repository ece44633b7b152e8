// SPDX-License-Identifier: Apache-2.0
//
// Rows of heads in memory that somebody else owns, as attention takes them beside xtensor expressions: a pointer,
// extents and strides, in one piece or in pages.
#ifndef LARQL_ROWS_VIEW_HPP
#define LARQL_ROWS_VIEW_HPP

#include <larql/detail/attention/problem.hpp>
#include <larql/detail/attention/stored_element.hpp>
#include <larql/detail/ceil_div.hpp>
#include <larql/detail/concat.hpp>
#include <larql/error.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

namespace larql {

/// [tokens, heads, size] elements of type E: those of head h of token t are the `size` that begin at
/// data[t * token_stride + h * head_stride].
///
/// With `pages`, the rows lie in pages of `page_tokens` tokens: token t is row t % page_tokens of the page that begins
/// at data[pages[t / page_tokens] * page_stride], the block table of an engine whose sequences share a pool of pages.
/// Pages that nothing is read from, because a window has left them behind, may have any number.
///
/// Strides count elements and may be negative; a row's elements lie side by side. Of larql::q8_0_block an element is a
/// block of 32 numbers: `size` counts numbers, strides count blocks. Nothing is owned: memory and page
/// numbers must outlive the call.
template <class E>
struct rows_view {
    using value_type = std::remove_cv_t<E>;

    E* data = nullptr;
    std::size_t tokens = 0;
    std::size_t heads = 0;
    std::size_t size = 0;
    std::ptrdiff_t token_stride = 0;
    std::ptrdiff_t head_stride = 0;
    std::span<const std::uint32_t> pages{};  ///< at least tokens / page_tokens of them, rounded up; empty: one piece
    std::size_t page_tokens = 0;             ///< 1 or more where there are pages; 16 and more are fast
    std::ptrdiff_t page_stride = 0;          ///< from the beginning of page 0 to that of page 1

    [[nodiscard]] constexpr std::array<std::size_t, 3> shape() const noexcept { return {tokens, heads, size}; }

    /// The same tokens, to be read only.
    [[nodiscard]] constexpr rows_view<const E> as_const() const noexcept {
        return {data, tokens, heads, size, token_stride, head_stride, pages, page_tokens, page_stride};
    }
};

namespace detail {

template <class E>
inline constexpr bool is_rows_view = false;
template <class E>
inline constexpr bool is_rows_view<rows_view<E>> = true;

/// @throws error errc::shape_mismatch if there are too few pages, or rows are not whole blocks
template <class E>
attention_rows<E> rows_of(const rows_view<E>& view, const char* name) {
    require_whole_elements<E>(view.size, name);
    attention_rows<E> rows{view.data, view.token_stride, view.head_stride, {}};
    if (view.pages.empty()) return rows;
    const std::size_t wanted = view.page_tokens == 0 ? 0 : ceil_div(view.tokens, view.page_tokens);
    if (view.page_tokens == 0 || view.pages.size() < wanted)
        fail(errc::shape_mismatch,
             concat({view.tokens, " tokens do not fit ", view.pages.size(), " pages of ", view.page_tokens}),
             {.subject = name});
    rows.pages = {view.pages.data(), view.page_tokens, view.page_stride};
    return rows;
}

}  // namespace detail

}  // namespace larql

#endif
