// SPDX-License-Identifier: Apache-2.0
//
// Memory between the products of a block, which a decode loop does not allocate anew.
#ifndef LARQL_DETAIL_MLA_PROJECTION_BUFFERS_HPP
#define LARQL_DETAIL_MLA_PROJECTION_BUFFERS_HPP

#include <larql/detail/xtensor.hpp>

namespace larql::detail {

/// Where the projections of a block keep what is between their products. It grows to the largest call.
template <class T>
struct projection_buffers {
    tensor<T, 2> query_latent = tensor<T, 2>::from_shape({0, 0});  ///< [T, Rq]
    tensor<T, 3> query = tensor<T, 3>::from_shape({0, 0, 0});      ///< [T, H, D], of latent form
    tensor<T, 2> key_latent = tensor<T, 2>::from_shape({0, 0});    ///< [T, R + P]
    tensor<T, 2> key_value = tensor<T, 2>::from_shape({0, 0});     ///< [T, G*(N + V)]
    tensor<T, 2> gate = tensor<T, 2>::from_shape({0, 0});
    tensor<T, 2> raw_query = tensor<T, 2>::from_shape({0, 0});     ///< [T, H*D], of the latent before its norm
    tensor<T, 2> both_latents = tensor<T, 2>::from_shape({0, 0});  ///< [T, 2*Rq]
    tensor<T, 2> output_parts = tensor<T, 2>::from_shape({0, 0});  ///< [T, Go*Ro]
};

/// Gives a tensor a shape; its elements are then anything. Allocates only if the shape is another.
template <class Tensor, class... Extents>
void fit(Tensor& x, Extents... extents) {
    const typename Tensor::shape_type shape{extents...};
    if (x.shape() != shape) x = Tensor::from_shape(shape);
}

/// Working memory of expanded_attention. It grows to the largest call.
template <class T>
struct expanded_buffers {
    tensor<T, 2> latents = tensor<T, 2>::from_shape({0, 0});    ///< [S, R + P]
    tensor<T, 3> keys = tensor<T, 3>::from_shape({0, 0, 0});    ///< [S, heads at once, N + P]
    tensor<T, 3> values = tensor<T, 3>::from_shape({0, 0, 0});  ///< [S, heads at once, V]
};

}  // namespace larql::detail

#endif
