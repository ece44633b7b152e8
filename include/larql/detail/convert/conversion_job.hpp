// SPDX-License-Identifier: Apache-2.0
//
// What a conversion does, piece by piece: the tensors that a piece makes and the work that makes their rows.
#ifndef LARQL_DETAIL_CONVERT_CONVERSION_JOB_HPP
#define LARQL_DETAIL_CONVERT_CONVERSION_JOB_HPP

#include <larql/attention_form.hpp>
#include <larql/dtype.hpp>
#include <larql/executor.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/matrix_input.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// What is converted to what.
struct conversion_scope {
    attention_form form = attention_form::factored;
    dtype type = dtype::f32;  ///< of what is computed or decoded
    std::size_t block_begin = 0, block_end = 0;
};

/// A tensor that the conversion will write.
struct planned_tensor {
    std::string name;
    dtype type = dtype::f32;
    std::vector<std::uint64_t> shape;
};

/// Where a job's results go. Rows of one tensor arrive in order; tensors of one job may alternate.
class tensor_sink {
public:
    virtual ~tensor_sink() = default;
    /// Bytes as they are stored.
    virtual void bytes(const std::string& name, std::span<const std::byte> data) = 0;
    /// Numbers that are converted to the tensor's type.
    virtual void numbers(const std::string& name, std::span<const float> values) = 0;
};

/// A unit of work: the tensors that it makes, and how.
struct conversion_job {
    std::vector<planned_tensor> tensors;
    std::function<void(tensor_sink&, executor&)> run;
};

/// Rows are handled in pieces of about this many floats: 16 MiB, far more than a disk wants at once and little memory.
inline constexpr std::size_t piece_floats = std::size_t{4} << 20;

/// The rows of some matrices, one matrix after the other, as one tensor.
inline conversion_job matrix_job(planned_tensor tensor, std::vector<matrix_input<float>> parts) {
    auto run = [name = tensor.name, parts = std::move(parts)](tensor_sink& sink, executor&) {
        std::vector<float> piece;
        for (const matrix_input<float>& rows : parts) {
            const std::size_t step = std::max<std::size_t>(piece_floats / std::max<std::size_t>(rows.cols(), 1), 1);
            for (std::size_t begin = 0; begin < rows.rows(); begin += step) {
                const std::size_t end = std::min(rows.rows(), begin + step);
                piece.resize((end - begin) * rows.cols());
                rows.read_rows(begin, end, piece.data(), rows.cols());
                sink.numbers(name, piece);
            }
        }
    };
    return {{std::move(tensor)}, std::move(run)};
}

/// Whether numbers survive a type unchanged.
inline bool holds_exactly(dtype type, std::span<const float> values) {
    if (type == dtype::f32) return true;
    std::vector<std::byte> bytes(values.size() * traits_of(type).block_bytes);
    std::vector<float> back(values.size());
    (void)quantize(type, values, bytes);
    dequantize(type, bytes, back);
    return std::ranges::equal(values, back);
}

/// Few numbers (gains, biases, routers), in the wanted type where it holds them exactly and in float32 otherwise:
/// rounding them would gain nothing.
inline conversion_job small_job(std::string name, dtype wanted, std::vector<std::uint64_t> shape,
                                std::vector<float> values) {
    const dtype type = holds_exactly(wanted, values) ? wanted : dtype::f32;
    auto run = [name, values = std::move(values)](tensor_sink& sink, executor&) { sink.numbers(name, values); };
    return {{{std::move(name), type, std::move(shape)}}, std::move(run)};
}

/// A tensor byte for byte.
inline conversion_job copy_job(planned_tensor tensor, std::span<const std::byte> bytes) {
    auto run = [name = tensor.name, bytes](tensor_sink& sink, executor&) { sink.bytes(name, bytes); };
    return {{std::move(tensor)}, std::move(run)};
}

}  // namespace larql::detail

#endif
