// SPDX-License-Identifier: Apache-2.0
// A source refers to the matrix that it comes from, which may own the elements.
// expect: deleted (member )?function.*source
#include <larql/matrix_input.hpp>

const float* place(const larql::tensor<float, 2>& weights);
const float* place(const larql::tensor<float, 2>& weights) {
#ifdef LARQL_FORBIDDEN
    return larql::matrix_input<float>(weights).source().data;
#else
    const larql::matrix_input<float> matrix = weights;
    return matrix.source().data;
#endif
}
