// SPDX-License-Identifier: Apache-2.0
// Products are written into memory, not into arithmetic.
// expect: an output must be a container, an adaptor or a strided view
#include <larql/mla_absorb.hpp>

void absorb(const larql::mla_factors<float>& factors, const larql::mla_geometry& geometry, larql::tensor<float, 2>& q,
            larql::tensor<float, 2>& k, larql::tensor<float, 2>& v);
void absorb(const larql::mla_factors<float>& factors, const larql::mla_geometry& geometry, larql::tensor<float, 2>& q,
            larql::tensor<float, 2>& k, larql::tensor<float, 2>& v) {
#ifdef LARQL_FORBIDDEN
    larql::absorb_into(factors, geometry, q + 1.0F, k, v);
#else
    larql::absorb_into(factors, geometry, q, k, v);
#endif
}
