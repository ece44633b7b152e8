// SPDX-License-Identifier: Apache-2.0
//
// A factor of a matrix product that is read by rows, and what the products share in reading it.
#ifndef LARQL_DETAIL_GEMM_SOURCE_HPP
#define LARQL_DETAIL_GEMM_SOURCE_HPP

#include <larql/detail/function_ref.hpp>
#include <larql/detail/gemm/stored_matrix.hpp>
#include <larql/detail/huge_pages.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <vector>

namespace larql::detail {

/// A matrix that is read by rows. `read_rows(begin, end, out, stride)` writes rows [begin, end) of `cols` values each
/// to out, out + stride, ...; it may be called from several threads at once, in any order, and more than once per row.
/// A source that has its rows in memory also sets `data`; then the products use that and do not call read_rows. One
/// that has them there in the type in which they are stored may set `stored`, which products of few rows compute from;
/// the others call read_rows, which decodes them.
///
/// It refers to its reader and owns nothing: name the callable, so that it outlives the source.
template <class T>
struct matrix_source {
    std::size_t rows;
    std::size_t cols;
    function_ref<void(std::size_t begin, std::size_t end, T* out, std::size_t stride)> read_rows;
    const T* data = nullptr;     ///< row r is data + r * row_stride, contiguous, or null
    std::size_t row_stride = 0;  ///< in values
    stored_matrix stored{};      ///< of matrices of float
};

/// A row-major matrix in memory as a reader; `source()` refers to this object.
template <class T>
struct dense_rows {
    const T* data;
    std::size_t rows;
    std::size_t cols;
    std::size_t row_stride;

    void operator()(std::size_t begin, std::size_t end, T* out, std::size_t stride) const {
        for (std::size_t r = begin; r < end; ++r, out += stride) std::copy_n(data + r * row_stride, cols, out);
    }
    [[nodiscard]] matrix_source<T> source() const& { return {rows, cols, *this, data, row_stride}; }
    matrix_source<T> source() const&& = delete;
};

/// Uninitialised memory on a cache line (and tile row) boundary: pages that are never written cost nothing.
template <class T>
class aligned_array {
    static_assert(std::is_trivial_v<T>);

public:
    aligned_array() = default;
    explicit aligned_array(std::size_t count) {
        if (count == 0) return;
        m_data.reset(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{alignment})));
        advise_huge_pages(m_data.get(), count * sizeof(T));
    }

    [[nodiscard]] T* data() const noexcept { return m_data.get(); }

private:
    static constexpr std::size_t alignment = 64;
    struct release {
        void operator()(T* p) const noexcept { ::operator delete(p, std::align_val_t{alignment}); }
    };
    std::unique_ptr<T, release> m_data;
};

/// Working memory that tasks borrow, so that there is one piece per running thread and not one per task.
template <class Scratch>
class scratch_pool {
public:
    /// Calls use(scratch) with a piece that no other thread has, made by make() when none is free.
    template <class Make, class Use>
    void with(Make&& make, Use&& use) {
        std::unique_ptr<Scratch> mine;
        {
            const std::lock_guard lock(m_mutex);
            if (!m_free.empty()) {
                mine = std::move(m_free.back());
                m_free.pop_back();
            }
        }
        if (!mine) mine = std::make_unique<Scratch>(make());
        use(*mine);
        const std::lock_guard lock(m_mutex);
        m_free.push_back(std::move(mine));
    }

private:
    std::mutex m_mutex{};
    std::vector<std::unique_ptr<Scratch>> m_free{};
};

template <class T>
struct row_view {
    const T* data;
    std::size_t stride;
};

/// Rows [begin, end) of a source: where they lie in memory, or read into `scratch`.
/// @param scratch  [end - begin, cols]
template <class T>
row_view<T> view_rows(const matrix_source<T>& source, std::size_t begin, std::size_t end, T* scratch) {
    if (source.data != nullptr) return {source.data + begin * source.row_stride, source.row_stride};
    source.read_rows(begin, end, scratch, source.cols);
    return {scratch, source.cols};
}

constexpr std::size_t divide_up(std::size_t a, std::size_t b) noexcept { return (a + b - 1) / b; }
constexpr std::size_t round_to(std::size_t a, std::size_t multiple) noexcept {
    return divide_up(a, multiple) * multiple;
}

/// The size of the parts when `total` is cut into equal parts of at most `limit`, each a multiple of `step` (at least
/// one step). Equal parts, since a short last one would run at the same fixed costs.
constexpr std::size_t even_part(std::size_t total, std::size_t limit, std::size_t step) noexcept {
    const std::size_t parts = divide_up(total, std::max(limit / step * step, step));
    return round_to(divide_up(total, std::max<std::size_t>(parts, 1)), step);
}

}  // namespace larql::detail

#endif
