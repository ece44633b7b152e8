// SPDX-License-Identifier: Apache-2.0
//
// Numbers of two checkpoints held against each other: bit for bit where both store them alike, else against what their
// formats can hold. Rows are read in pieces, so that memory does not grow with the tensor.
#ifndef LARQL_DETAIL_VERIFY_NUMBERS_HPP
#define LARQL_DETAIL_VERIFY_NUMBERS_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/verify/report.hpp>
#include <larql/detail/verify/steps.hpp>
#include <larql/dtype.hpp>
#include <larql/matrix_input.hpp>
#include <larql/weight_reader.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// Rows of one side, whatever they are made of.
struct compared_rows {
    std::string name;         ///< as stored; of a part of a tensor, with what tells it apart
    dtype type = dtype::f32;  ///< of the numbers or codes
    std::string scheme{};     ///< how codes become numbers (weight::scheme)
    std::uint64_t rows = 0, columns = 0;
    /// Rows [begin, end) as float, one after the other.
    std::function<void(std::uint64_t begin, std::uint64_t end, std::span<float> out)> read{};
    /// The stored bytes of these rows from byte `first` on; empty if no run of stored bytes is these rows.
    std::function<void(std::uint64_t first, std::span<std::byte> out)> bytes{};
    std::uint64_t size_bytes = 0;  ///< of these stored bytes
    bool rearranged = false;       ///< put together from tensors whose blocks lie in other directions

    [[nodiscard]] std::string type_text() const {
        return std::string(to_string(type)) + (scheme.empty() ? "" : " (" + scheme + ")");
    }
    [[nodiscard]] dtype_kind kind() const noexcept { return traits_of(type).kind; }
};

/// Rows [begin, end) of a stored weight.
inline compared_rows rows_of_weight(const checkpoint& model, const std::string& name, std::uint64_t begin,
                                    std::uint64_t end, std::string shown) {
    const auto found = std::make_shared<const weight>(model.weights().at(name));
    compared_rows out{.name = std::move(shown),
                      .type = found->type(),
                      .scheme = std::string(found->scheme()),
                      .rows = end - begin,
                      .columns = found->columns()};
    out.read = [found, begin](std::uint64_t first, std::uint64_t last, std::span<float> to) {
        found->read_rows(begin + first, begin + last, to.data(), static_cast<std::size_t>(found->columns()));
    };
    const dtype_traits& traits = traits_of(out.type);
    if (found->raw() == nullptr || out.columns % traits.block_elements != 0) return out;
    const std::uint64_t row_bytes = out.columns / traits.block_elements * traits.block_bytes;
    out.size_bytes = out.rows * row_bytes;
    out.bytes = [model, found, skipped = begin * row_bytes](std::uint64_t first, std::span<std::byte> to) {
        if (const auto file = model.gguf())
            file->read_bytes(*found->raw(), skipped + first, to);
        else
            model.safetensors()->read_bytes(*found->raw(), skipped + first, to);
    };
    return out;
}

/// Rows that are made from stored ones, in a floating-point format or without a step of their own.
inline compared_rows rows_of_matrix(matrix_input<float> matrix, dtype type, std::string scheme, std::string shown) {
    compared_rows out{.name = std::move(shown),
                      .type = type,
                      .scheme = std::move(scheme),
                      .rows = matrix.rows(),
                      .columns = matrix.cols(),
                      .rearranged = true};
    out.read = [matrix = std::move(matrix)](std::uint64_t begin, std::uint64_t end, std::span<float> to) {
        matrix.read_rows(static_cast<std::size_t>(begin), static_cast<std::size_t>(end), to.data(), matrix.cols());
    };
    return out;
}

inline compared_rows rows_of_vector(std::vector<float> values, dtype type, std::string shown) {
    compared_rows out{.name = std::move(shown), .type = type, .rows = 1, .columns = values.size()};
    out.read = [values = std::move(values)](std::uint64_t, std::uint64_t, std::span<float> to) {
        std::ranges::copy(values, to.begin());
    };
    return out;
}

/// Whether every number of one of two floating-point types is one of the other.
inline bool one_holds_the_other(dtype a, dtype b) noexcept {
    const auto wide = [](dtype t) { return t == dtype::f32 || t == dtype::f64; };
    return traits_of(a).kind == dtype_kind::floating && traits_of(b).kind == dtype_kind::floating &&
           (wide(a) || wide(b));
}

/// What is known of a tensor beside its numbers.
struct tensor_facts {
    /// A gain, bias or router. Converters store them in float32 where the matrices are smaller, and never round them.
    bool small = false;
    bool gains = false;     ///< of a norm, in two containers
    bool computed = false;  ///< exponentials in float32, whose last bit differs from one program to another
};

/// Compares two sets of rows.
class row_comparison {
public:
    row_comparison(const compared_rows& a, const compared_rows& b, const tensor_facts& facts)
        : m_a(a), m_b(b), m_small(facts.small), m_computed(facts.computed) {
        m_check.name_a = a.name;
        m_check.name_b = b.name;
        m_check.type_a = a.type_text();
        m_check.type_b = b.type_text();
        m_check.elements = a.rows * a.columns;
    }

    tensor_check run() {
        const bool alike = m_a.type == m_b.type && m_a.scheme == m_b.scheme;
        if (m_a.rows * m_a.columns != m_b.rows * m_b.columns || (m_a.columns != m_b.columns && !(alike && stored())))
            return differs(concat({"has [", m_a.rows, ", ", m_a.columns, "] numbers in the first and [", m_b.rows, ", ",
                                   m_b.columns, "] in the second"}));
        if (alike && stored()) return by_bytes();
        if (m_a.kind() == dtype_kind::integer || m_b.kind() == dtype_kind::integer)
            if (m_a.scheme.empty() || m_b.scheme.empty()) return differs("holds integers on one side only");
        for (const compared_rows* side : {&m_a, &m_b})
            if (side->kind() == dtype_kind::block && side->rearranged)
                return differs("cannot be compared: the blocks of " + side->type_text() + " lie otherwise in " +
                               side->name);
        by_value(!m_computed && (alike || (m_small && m_a.scheme.empty() && m_b.scheme.empty() &&
                                           one_holds_the_other(m_a.type, m_b.type))));
        return m_check;
    }

private:
    static constexpr std::uint64_t piece_bytes = std::uint64_t{1} << 20;
    static constexpr std::uint64_t piece_floats = std::uint64_t{1} << 18;

    [[nodiscard]] bool stored() const { return m_a.bytes && m_b.bytes && m_a.size_bytes == m_b.size_bytes; }

    tensor_check differs(std::string problem) {
        m_check.result = tensor_agreement::different;
        m_check.problem = std::move(problem);
        return m_check;
    }

    tensor_check by_bytes() {
        std::vector<std::byte> x, y;
        for (std::uint64_t first = 0; first < m_a.size_bytes; first += piece_bytes) {
            x.resize(static_cast<std::size_t>(std::min(piece_bytes, m_a.size_bytes - first)));
            y.resize(x.size());
            m_a.bytes(first, x);
            m_b.bytes(first, y);
            if (std::memcmp(x.data(), y.data(), x.size()) == 0) continue;
            const auto at = static_cast<std::uint64_t>(std::ranges::mismatch(x, y).in1 - x.begin());
            m_check.problem =
                concat({"is ", m_check.type_a, " in both, and the bits differ, first in byte ", first + at});
            m_check.result = tensor_agreement::different;
            if (m_a.kind() != dtype_kind::integer && m_a.columns == m_b.columns) measure();
            return m_check;
        }
        m_check.result = tensor_agreement::identical;
        return m_check;
    }

    /// How far the numbers of a tensor whose bits differ are apart.
    void measure() {
        const std::string problem = m_check.problem;
        by_value(true);
        m_check.problem = problem;
        m_check.result = tensor_agreement::different;
    }

    /// One piece of one side, with the bound of each number.
    struct piece {
        std::vector<float> values, steps;
        std::vector<std::byte> blocks;

        void read(const compared_rows& from, std::uint64_t begin, std::uint64_t end) {
            const auto count = static_cast<std::size_t>((end - begin) * from.columns);
            values.resize(count);
            steps.assign(count, 0.0F);
            from.read(begin, end, values);
            if (!from.scheme.empty()) return;
            if (from.kind() == dtype_kind::floating) return steps_of_floats(from.type, values, steps);
            if (from.kind() != dtype_kind::block || !from.bytes || find_step_rule(from.type) == nullptr) return;
            const dtype_traits& traits = traits_of(from.type);
            const std::uint64_t row_bytes = from.columns / traits.block_elements * traits.block_bytes;
            blocks.resize(static_cast<std::size_t>((end - begin) * row_bytes));
            from.bytes(begin * row_bytes, blocks);
            steps_of_blocks(from.type, blocks, steps);
        }
    };

    /// @param exact  no step is allowed: both sides store the numbers in the same format, or should have kept them
    void by_value(bool exact) {
        m_check.result = tensor_agreement::equal;
        m_check.numbers_differing = 0;
        m_rounded = true;
        if (m_a.columns == 0) return;
        const std::uint64_t step = std::max<std::uint64_t>(piece_floats / m_a.columns, 1);
        piece a, b;
        for (std::uint64_t row = 0; row < m_a.rows; row += step) {
            const std::uint64_t end = std::min(m_a.rows, row + step);
            a.read(m_a, row, end);
            b.read(m_b, row, end);
            for (std::size_t i = 0; i < a.values.size(); ++i) {
                const double last_bit = m_computed ? std::ldexp(std::fabs(double{a.values[i]}), -23) : 0.0;
                compare(a.values[i], b.values[i], exact, double{a.steps[i]} + double{b.steps[i]} + last_bit,
                        row * m_a.columns + i);
            }
        }
        if (m_check.numbers_differing == 0) return;
        if (m_beyond == 0) {
            m_check.result = m_rounded ? tensor_agreement::rounded : tensor_agreement::within_step;
            return;
        }
        m_check.result = tensor_agreement::different;
        m_check.problem =
            concat({m_beyond, " of ", m_check.elements, " numbers differ",
                    (exact ? "" : " by more than " + m_check.type_a + " and " + m_check.type_b + " allow"),
                    ", first number ", m_first});
    }

    void compare(float x, float y, bool exact, double steps, std::uint64_t at) {
        if (std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y) || (std::isnan(x) && std::isnan(y)))
            return;
        const double error = std::isfinite(x) && std::isfinite(y) ? std::fabs(double{x} - double{y})
                                                                  : std::numeric_limits<double>::infinity();
        if (error == 0.0 && !exact) return;  // zeros of either sign are one number, but not the same bits
        ++m_check.numbers_differing;
        m_rounded = m_rounded && (rounds_to(x, m_b.type, y) || rounds_to(y, m_a.type, x));
        m_check.largest_error = std::max(m_check.largest_error, error);
        const double in_steps = steps > 0.0 ? error / steps : std::numeric_limits<double>::infinity();
        m_check.largest_in_steps = std::max(m_check.largest_in_steps, in_steps);
        if (in_steps <= 1.0 && !exact) return;
        if (m_beyond++ == 0) m_first = at;
    }

    /// Whether `stored`, of a small floating-point type, is the nearest to x that the type has.
    static bool rounds_to(float x, dtype type, float stored) {
        if (type == dtype::f16) return f16_to_float(float_to_f16(x)) == stored;
        if (type == dtype::bf16) return bf16_to_float(float_to_bf16(x)) == stored;
        return false;
    }

    const compared_rows& m_a;
    const compared_rows& m_b;
    bool m_small, m_computed;
    tensor_check m_check;
    bool m_rounded = true;
    std::uint64_t m_beyond = 0;  // numbers further apart than allowed
    std::uint64_t m_first = 0;   // the first of them
};

/// Whether one of two vectors is the other with 1 added to every number. llama.cpp's converter stores gains so, of
/// families that publish them less one.
inline bool one_was_added(const compared_rows& a, const compared_rows& b) {
    if (a.rows != 1 || b.rows != 1 || a.columns != b.columns || a.columns == 0) return false;
    std::vector<float> x(static_cast<std::size_t>(a.columns)), y(x.size());
    a.read(0, 1, x);
    b.read(0, 1, y);
    const auto plus_one = [](float less, float more) { return less + 1.0F == more; };
    return std::ranges::equal(x, y, plus_one) || std::ranges::equal(y, x, plus_one);
}

/// Compares two sets of rows; what cannot be read is a difference that says why.
inline tensor_check compare_rows(const compared_rows& a, const compared_rows& b, const tensor_facts& facts = {}) {
    try {
        tensor_check check = row_comparison(a, b, facts).run();
        if (!check.holds() && facts.gains && one_was_added(a, b)) {
            check.result = tensor_agreement::one_added;
            check.problem.clear();
        }
        return check;
    } catch (const error& e) {
        return {.name_a = a.name,
                .name_b = b.name,
                .type_a = a.type_text(),
                .type_b = b.type_text(),
                .result = tensor_agreement::different,
                .problem = e.what()};
    }
}

}  // namespace larql::detail

#endif
