// SPDX-License-Identifier: Apache-2.0
// Products are written as the type that the factors have.
// expect: an output holds the factors' type
#include <larql/mla_absorb.hpp>

#ifdef LARQL_FORBIDDEN
using stored = double;
#else
using stored = float;
#endif

void absorb(const larql::mla_factors<float>& factors, const larql::mla_geometry& geometry, larql::tensor<stored, 2>& q,
            larql::tensor<float, 2>& k, larql::tensor<float, 2>& v);
void absorb(const larql::mla_factors<float>& factors, const larql::mla_geometry& geometry, larql::tensor<stored, 2>& q,
            larql::tensor<float, 2>& k, larql::tensor<float, 2>& v) {
    larql::absorb_into(factors, geometry, q, k, v);
}
