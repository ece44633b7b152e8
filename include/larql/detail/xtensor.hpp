// SPDX-License-Identifier: Apache-2.0
//
// The only header that includes xtensor. It accepts both header layouts (0.24 and 0.25; 0.26 and later).
#ifndef LARQL_DETAIL_XTENSOR_HPP
#define LARQL_DETAIL_XTENSOR_HPP

#include <larql/detail/language.hpp>

#if __has_include(<xtensor/core/xtensor_config.hpp>)
#include <xtensor/core/xtensor_config.hpp>
#elif __has_include(<xtensor/xtensor_config.hpp>)
#include <xtensor/xtensor_config.hpp>
#else
#error "larql needs xtensor 0.24 or later on the include path (Debian: libxtensor-dev)"
#endif

#if XTENSOR_VERSION_MAJOR == 0 && XTENSOR_VERSION_MINOR < 24
#error "larql needs xtensor 0.24 or later; an older one comes first on the include path"
#endif

#if XTENSOR_VERSION_MAJOR > 0 || XTENSOR_VERSION_MINOR >= 26
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/containers/xtensor.hpp>
#else
#include <xtensor/xadapt.hpp>
#include <xtensor/xtensor.hpp>
#endif

#include <cstddef>

namespace xt {
template <class CT, class S, layout_type L, class FST>
class xstrided_view;  // its header costs what most users do not need
}  // namespace xt

namespace larql {

/// A row-major tensor of fixed rank, whatever XTENSOR_DEFAULT_LAYOUT says.
template <class T, std::size_t Rank>
using tensor = xt::xtensor<T, Rank, xt::layout_type::row_major>;

}  // namespace larql

#endif
