// SPDX-License-Identifier: Apache-2.0
//
// The row bookkeeping of MLA absorption: which stored row becomes which row of the result, and the products by rows.
#ifndef LARQL_DETAIL_MLA_ROWS_HPP
#define LARQL_DETAIL_MLA_ROWS_HPP

#include <larql/attention_form.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/huge_pages.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_geometry.hpp>
#include <larql/rope.hpp>
#include <larql/tensor_role.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace larql {

template <class T>
struct mla_factors;
template <class T>
struct dense_mla;

namespace detail {

/// [A, B, C] as [A*B, C], without moving an element.
template <class T>
tensor<T, 2> flatten_heads(tensor<T, 3>&& x) {
    const std::size_t rows = x.shape(0) * x.shape(1), cols = x.shape(2);
    auto flat = tensor<T, 2>::from_shape({0, 0});
    flat.storage() = std::move(x.storage());
    flat.resize({rows, cols}, true);
    return flat;
}

/// [A, B, C] as [A, B*C], without moving an element.
template <class T>
tensor<T, 2> flatten_tokens(tensor<T, 3>&& x) {
    const std::size_t rows = x.shape(0), cols = x.shape(1) * x.shape(2);
    tensor<T, 2> flat = flatten_heads(std::move(x));
    flat.resize({rows, cols}, true);
    return flat;
}

template <class T>
void require_shape(const matrix_input<T>& matrix, std::size_t rows, std::size_t cols, std::string_view name) {
    if (matrix.empty()) fail(errc::missing_tensor, "required and not given", {.subject = std::string(name)});
    if (matrix.rows() != rows || matrix.cols() != cols)
        fail(errc::shape_mismatch,
             concat({"expected [", rows, ", ", cols, "], got [", matrix.rows(), ", ", matrix.cols(), "]"}),
             {.subject = std::string(name)});
}

template <class T>
void require_length(const vector_input<T>& vector, std::size_t length, std::string_view name) {
    if (!vector.empty() && vector.size() != length)
        fail(errc::shape_mismatch, concat({"expected ", length, " elements, got ", vector.size()}),
             {.subject = std::string(name)});
}

/// Heads [begin, end) of the query and the key/value heads that they use.
struct head_range {
    std::size_t begin, end, kv_begin, kv_end;

    [[nodiscard]] std::size_t count() const noexcept { return end - begin; }
    [[nodiscard]] std::size_t kv_count() const noexcept { return kv_end - kv_begin; }
};

/// Checks every factor against the geometry and turns the caller's heads into a range.
/// @param others_latent  kv_a may be absent: another block makes the latents
template <class T>
head_range check_factors(const mla_factors<T>& factors, const mla_geometry& g, std::size_t head_begin,
                         std::size_t head_end, bool others_latent = false) {
    const std::size_t kv_heads = g.kv_heads();
    if (g.num_heads == 0 || kv_heads == 0 || g.num_heads % kv_heads != 0)
        fail(errc::shape_mismatch, concat({"expected kv heads to divide heads, got ", kv_heads, " and ", g.num_heads}),
             {.subject = "mla_geometry"});
    const std::size_t query_rows = g.num_heads * g.qk_head_dim();
    if (g.q_lora_rank == 0) {
        require_shape(factors.q, query_rows, g.hidden_size, "q");
    } else {
        require_shape(factors.q_a, g.q_lora_rank, g.hidden_size, "q_a");
        require_shape(factors.q_b, query_rows, g.q_lora_rank, "q_b");
    }
    if (!others_latent || !factors.kv_a.empty())
        require_shape(factors.kv_a, g.kv_lora_rank + g.qk_rope_head_dim, g.hidden_size, "kv_a");
    require_shape(factors.kv_b, kv_heads * (g.qk_nope_head_dim + g.v_head_dim), g.kv_lora_rank, "kv_b");
    require_length(factors.q_a_norm, g.q_lora_rank, "q_a_norm");
    require_length(factors.q_a_bias, g.q_lora_rank, "q_a_bias");
    require_length(factors.kv_a_norm, g.kv_lora_rank, "kv_a_norm");
    require_length(factors.kv_a_bias, g.kv_lora_rank + g.qk_rope_head_dim, "kv_a_bias");

    head_end = std::min(head_end, g.num_heads);
    const std::size_t group = g.num_heads / kv_heads;
    if (head_begin > head_end || head_begin % group != 0 || head_end % group != 0)
        fail(errc::shape_mismatch,
             concat({"expected heads in groups of ", group, " up to ", g.num_heads, ", got ", head_begin, " to ",
                     head_end}),
             {.subject = "head range"});
    return {head_begin, head_end, head_begin / group, head_end / group};
}

/// Rows keep their pairing when there is nothing to rotate or the stored weights are not rotated at all.
inline rope_pairing pairing_after(const mla_geometry& g, rope_pairing wanted) noexcept {
    return g.pairing == rope_pairing::none ? rope_pairing::none : wanted;
}

/// Where the rows of a stored head go.
class head_rows {
public:
    head_rows(const mla_geometry& g, head_order order, rope_pairing pairing)
        : m_stored_rope_begin(g.order == head_order::nope_rope ? g.qk_nope_head_dim : 0),
          m_stored_nope_begin(g.order == head_order::nope_rope ? 0 : g.qk_rope_head_dim),
          m_rope_begin(order == head_order::nope_rope ? g.qk_nope_head_dim : 0),
          m_nope_begin(order == head_order::nope_rope ? 0 : g.qk_rope_head_dim),
          m_new_position(g.qk_rope_head_dim) {
        const std::vector<std::size_t> old_position = g.pairing == pairing_after(g, pairing)
                                                          ? std::vector<std::size_t>{}
                                                          : rope_row_order(g.qk_rope_head_dim, g.pairing, pairing);
        for (std::size_t i = 0; i < m_new_position.size(); ++i)
            m_new_position[old_position.empty() ? i : old_position[i]] = i;
    }

    /// New row, within a head, of row `stored` of a stored query head.
    [[nodiscard]] std::size_t of_query(std::size_t stored) const noexcept {
        const std::size_t rope = stored - m_stored_rope_begin;  // wraps for rows before it
        if (rope < m_new_position.size()) return of_rope(rope);
        return of_nope(stored - m_stored_nope_begin);
    }
    /// New row of unrotated element i.
    [[nodiscard]] std::size_t of_nope(std::size_t i) const noexcept { return m_nope_begin + i; }
    /// New row of rotated element i.
    [[nodiscard]] std::size_t of_rope(std::size_t i) const noexcept { return m_rope_begin + m_new_position[i]; }
    /// New place of rotated element i among the rotated ones.
    [[nodiscard]] std::size_t rope_position(std::size_t i) const noexcept { return m_new_position[i]; }

private:
    std::size_t m_stored_rope_begin, m_stored_nope_begin, m_rope_begin, m_nope_begin;
    std::vector<std::size_t> m_new_position;
};

/// Rows of a result in the caller's memory.
template <class T>
struct output_rows {
    T* data;
    std::size_t stride;

    [[nodiscard]] T* row(std::size_t i) const noexcept { return data + i * stride; }
};

template <class T, class Out>
output_rows<T> output_of(Out& out, std::size_t rows, std::size_t cols, std::string_view name) {
    static_assert(strided_expression<Out>, "an output must be a container, an adaptor or a strided view");
    static_assert(std::is_same_v<typename std::remove_cvref_t<Out>::value_type, T>,
                  "an output holds the factors' type");
    require_rank(out.dimension(), 2, name);
    const auto got_rows = static_cast<std::size_t>(out.shape()[0]);
    const auto got_cols = static_cast<std::size_t>(out.shape()[1]);
    if (got_rows != rows || got_cols != cols)
        fail(errc::shape_mismatch, concat({"expected [", rows, ", ", cols, "], got [", got_rows, ", ", got_cols, "]"}),
             {.subject = std::string(name)});
    const auto row_stride = static_cast<std::ptrdiff_t>(out.strides()[0]);
    const auto col_stride = static_cast<std::ptrdiff_t>(out.strides()[1]);
    if ((cols > 1 && col_stride != 1) || (rows > 1 && row_stride < static_cast<std::ptrdiff_t>(cols)))
        fail(errc::shape_mismatch,
             concat({"expected rows of contiguous elements, got strides ", row_stride, " and ", col_stride}),
             {.subject = std::string(name)});
    return {out.data() + out.data_offset(), rows > 1 ? static_cast<std::size_t>(row_stride) : cols};
}

/// Reads rows one by one and hands each to where it goes: a permuted copy.
template <class T, class Place>
void scatter_rows(const matrix_input<T>& from, std::size_t begin, std::size_t end, Place place) {
    for (std::size_t i = begin; i < end; ++i) from.read_rows(i, i + 1, place(i), from.cols());
}

/// Q: W_qb diag(g_q) W_qa, or the stored projection where there is no latent.
template <class T>
void absorb_query(const mla_factors<T>& factors, const mla_geometry& g, const head_range& heads, const head_rows& rows,
                  const output_rows<T>& q, executor& threads) {
    const std::size_t head_dim = g.qk_head_dim();
    const auto place = [&](std::size_t i) { return q.row(i / head_dim * head_dim + rows.of_query(i % head_dim)); };
    const matrix_input<T>& stored = g.q_lora_rank == 0 ? factors.q : factors.q_b;
    const matrix_input<T> wanted = stored.row_range(heads.begin * head_dim, heads.end * head_dim);
    if (g.q_lora_rank == 0) return scatter_rows(wanted, 0, wanted.rows(), place);
    const T* gains = factors.q_a_norm.empty() ? nullptr : factors.q_a_norm.data();
    gemm_nn<T>(wanted.source(), gains, factors.q_a.source(), place, threads);
}

/// K and V: W_kvb diag(g_kv) W_c, and the shared rotated rows copied to every head.
template <class T>
void absorb_key_value(const mla_factors<T>& factors, const mla_geometry& g, const head_range& heads,
                      const head_rows& rows, const output_rows<T>& k, const output_rows<T>& v, executor& threads) {
    const std::size_t head_dim = g.qk_head_dim(), nope = g.qk_nope_head_dim, value = g.v_head_dim;
    const std::size_t stored_rows = nope + value;
    const auto place = [&](std::size_t i) {
        const std::size_t head = i / stored_rows, row = i % stored_rows;
        return row < nope ? k.row(head * head_dim + rows.of_nope(row)) : v.row(head * value + row - nope);
    };
    const matrix_input<T> wanted = factors.kv_b.row_range(heads.kv_begin * stored_rows, heads.kv_end * stored_rows);
    const matrix_input<T> latent = factors.kv_a.row_range(0, g.kv_lora_rank);
    const T* gains = factors.kv_a_norm.empty() ? nullptr : factors.kv_a_norm.data();
    gemm_nn<T>(wanted.source(), gains, latent.source(), place, threads);

    if (heads.kv_count() == 0) return;
    threads.run(g.qk_rope_head_dim, [&](std::size_t i) {
        T* const first = k.row(rows.of_rope(i));
        factors.kv_a.read_rows(g.kv_lora_rank + i, g.kv_lora_rank + i + 1, first, g.hidden_size);
        for (std::size_t head = 1; head < heads.kv_count(); ++head)
            std::copy_n(first, g.hidden_size, k.row(head * head_dim + rows.of_rope(i)));
    });
}

/// An uninitialised matrix, on large pages if it is large.
template <class T>
tensor<T, 2> large_matrix(std::size_t rows, std::size_t cols) {
    auto result = tensor<T, 2>::from_shape({rows, cols});
    advise_huge_pages(result.data(), result.size() * sizeof(T));
    return result;
}

template <class T>
tensor<T, 1> to_tensor(const vector_input<T>& vector) {
    auto result = tensor<T, 1>::from_shape({vector.size()});
    std::copy_n(vector.data(), vector.size(), result.data());
    return result;
}

/// A bias of q_a or kv_a passes through the same products as the columns do: it is one more column.
template <class T>
void absorb_biases(const mla_factors<T>& factors, const mla_geometry& g, const head_range& heads, head_order order,
                   rope_pairing pairing, dense_mla<T>& layer) {
    mla_geometry column = g;
    column.hidden_size = 1;
    const head_rows rows(g, order, pairing);
    serial_executor serial;
    const auto as_column = [](const vector_input<T>& bias) {
        return matrix_input<T>(bias.size(), 1,
                               [values = bias.values()](std::size_t b, std::size_t e, T* out, std::size_t stride) {
                                   for (std::size_t i = b; i < e; ++i, out += stride) *out = values[i];
                               });
    };
    mla_factors<T> biases = factors;
    const std::size_t head_dim = g.qk_head_dim();
    if (!factors.q_a_bias.empty() && g.q_lora_rank != 0) {
        biases.q_a = as_column(factors.q_a_bias);
        layer.q_bias = tensor<T, 1>::from_shape({heads.count() * head_dim});
        absorb_query(biases, column, heads, rows, output_rows<T>{layer.q_bias.data(), 1}, serial);
        layer.q_a_bias = to_tensor(factors.q_a_bias);
    }
    if (!factors.kv_a_bias.empty()) {
        biases.kv_a = as_column(factors.kv_a_bias);
        layer.k_bias = tensor<T, 1>::from_shape({heads.kv_count() * head_dim});
        layer.v_bias = tensor<T, 1>::from_shape({heads.kv_count() * g.v_head_dim});
        absorb_key_value(biases, column, heads, rows, output_rows<T>{layer.k_bias.data(), 1},
                         output_rows<T>{layer.v_bias.data(), 1}, serial);
        layer.kv_a_bias = tensor<T, 1>::from_shape({g.kv_lora_rank});
        std::copy_n(factors.kv_a_bias.data(), g.kv_lora_rank, layer.kv_a_bias.data());
    }
}

/// Query rows in their new order, columns multiplied by the gains, if any.
template <class T>
void copy_head_rows(const matrix_input<T>& from, const mla_geometry& g, const head_range& heads, const head_rows& rows,
                    const vector_input<T>& gains, T* out) {
    const std::size_t head_dim = g.qk_head_dim(), cols = from.cols();
    scatter_rows(from, heads.begin * head_dim, heads.end * head_dim,
                 [&](std::size_t i) { return out + (i / head_dim * head_dim + rows.of_query(i % head_dim)) * cols; });
    if (gains.empty()) return;
    for (std::size_t r = 0; r < heads.count() * head_dim; ++r)
        for (std::size_t c = 0; c < cols; ++c) out[r * cols + c] *= gains.data()[c];
}

/// kv_a with its rotated rows in their new order.
template <class T>
void copy_kv_a(const matrix_input<T>& kv_a, const mla_geometry& g, const head_rows& rows, T* out) {
    kv_a.read_rows(0, g.kv_lora_rank, out, g.hidden_size);
    scatter_rows(kv_a, g.kv_lora_rank, g.kv_lora_rank + g.qk_rope_head_dim, [&](std::size_t i) {
        return out + (g.kv_lora_rank + rows.rope_position(i - g.kv_lora_rank)) * g.hidden_size;
    });
}

template <class T>
tensor<T, 1> permute_kv_a_bias(const vector_input<T>& bias, const mla_geometry& g, const head_rows& rows) {
    tensor<T, 1> result = to_tensor(bias);
    if (bias.empty()) return result;
    for (std::size_t i = 0; i < g.qk_rope_head_dim; ++i)
        result.data()[g.kv_lora_rank + rows.rope_position(i)] = bias.data()[g.kv_lora_rank + i];
    return result;
}

/// Rows of every head in another order: row i of a head is row from[i] of the stored one.
template <class T>
matrix_input<T> rows_of_heads(matrix_input<T> stored, std::vector<std::size_t> from) {
    const std::size_t rows = stored.rows(), cols = stored.cols();
    return matrix_input<T>(rows, cols,
                           [stored = std::move(stored), from = std::move(from)](std::size_t begin, std::size_t end,
                                                                                T* out, std::size_t stride) {
                               for (std::size_t r = begin; r < end; ++r, out += stride) {
                                   const std::size_t row = r / from.size() * from.size() + from[r % from.size()];
                                   stored.read_rows(row, row + 1, out, stride);
                               }
                           });
}

/// What another form keeps of the stored weights, with its rows in their new order: the gains of the rotated rows, and
/// what queries take of the latent before its norm.
template <class Weights>
void reorder_stored_rows(Weights& weights, const mla_geometry& g, const head_rows& rows) {
    if (auto& raw = weights[tensor_role::q_b_raw]; !raw.empty()) {
        std::vector<std::size_t> from(g.qk_head_dim());
        for (std::size_t i = 0; i < from.size(); ++i) from[rows.of_query(i)] = i;
        raw = rows_of_heads(std::move(raw), std::move(from));
    }
    auto& gains = weights.vector(tensor_role::k_rope_norm);
    if (gains.empty()) return;
    auto reordered = gains.values();
    for (std::size_t i = 0; i < gains.size(); ++i) reordered[rows.rope_position(i)] = gains.data()[i];
    gains = std::move(reordered);
}

/// Per head: N key rows transposed into k_b [G, R, N], V value rows copied into v_b [G, V, R]; columns times the gains.
template <class T>
void split_kv_b_into(const matrix_input<T>& kv_b, const mla_geometry& g, const vector_input<T>& gains, T* k_b, T* v_b) {
    const std::size_t rank = g.kv_lora_rank, nope = g.qk_nope_head_dim, value = g.v_head_dim;
    std::vector<T> keys(nope * rank);
    for (std::size_t head = 0; head < g.kv_heads(); ++head) {
        const std::size_t first = head * (nope + value);
        T* const values = v_b + head * value * rank;
        kv_b.read_rows(first, first + nope, keys.data(), rank);
        kv_b.read_rows(first + nope, first + nope + value, values, rank);
        if (!gains.empty()) {
            for (std::size_t i = 0; i < keys.size(); ++i) keys[i] *= gains.data()[i % rank];
            for (std::size_t i = 0; i < value * rank; ++i) values[i] *= gains.data()[i % rank];
        }
        T* const transposed = k_b + head * rank * nope;
        for (std::size_t c = 0; c < rank; ++c)
            for (std::size_t r = 0; r < nope; ++r) transposed[c * nope + r] = keys[r * rank + c];
    }
}

/// kv_b read from k_b [G*R, N] and v_b [G*V, R]. A key row is a column of k_b, so a head's k_b is read as a whole.
template <class T>
matrix_input<T> merged_kv_b(matrix_input<T> k_b, matrix_input<T> v_b, const mla_geometry& g) {
    const std::size_t rank = g.kv_lora_rank, nope = g.qk_nope_head_dim, value = g.v_head_dim;
    const auto read = [k = std::move(k_b), v = std::move(v_b), rank, nope, value](std::size_t begin, std::size_t end,
                                                                                  T* out, std::size_t stride) {
        std::vector<T> head_keys;
        std::size_t loaded = static_cast<std::size_t>(-1);
        for (std::size_t i = begin; i < end; ++i, out += stride) {
            const std::size_t head = i / (nope + value), row = i % (nope + value);
            if (row >= nope) {
                v.read_rows(head * value + row - nope, head * value + row - nope + 1, out, rank);
                continue;
            }
            if (loaded != head) {
                head_keys.resize(rank * nope);
                k.read_rows(head * rank, (head + 1) * rank, head_keys.data(), nope);
                loaded = head;
            }
            for (std::size_t c = 0; c < rank; ++c) out[c] = head_keys[c * nope + row];
        }
    };
    return matrix_input<T>(g.kv_heads() * (nope + value), rank, read);
}

}  // namespace detail
}  // namespace larql

#endif
