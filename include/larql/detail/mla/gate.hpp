// SPDX-License-Identifier: Apache-2.0
//
// Gates of the heads' outputs.
#ifndef LARQL_DETAIL_MLA_GATE_HPP
#define LARQL_DETAIL_MLA_GATE_HPP

#include <larql/attention_spec.hpp>
#include <larql/detail/xtensor.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace larql::detail {

/// Multiplies the heads' outputs by factors.
/// @param gate     [T, H] or [T, H*V], what the gate's projection gave
/// @param context  [T, H*V], in place
template <class T>
void multiply_by_gate(const tensor<T, 2>& gate, gate_function function, tensor<T, 2>& context) {
    const std::size_t shared = context.shape(1) / gate.shape(1);  // elements that one factor multiplies
    if (function == gate_function::sigmoid) {
        for (std::size_t i = 0; i < context.size(); ++i)
            context.data()[i] *= T(1) / (T(1) + std::exp(-gate.data()[i / shared]));
        return;
    }
    for (std::size_t i = 0; i < context.size(); ++i) {
        const T z = gate.data()[i / shared];
        context.data()[i] *= std::max(z, T(0)) + std::log1p(std::exp(-std::abs(z)));  // which does not overflow
    }
}

}  // namespace larql::detail

#endif
