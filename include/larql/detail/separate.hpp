// SPDX-License-Identifier: Apache-2.0
//
// Header-only or compiled once. By default every function is inline and its body comes with its declaration. With
// LARQL_SEPARATE defined, headers declare, and the bodies, those under detail/bodies, are compiled into one object:
// that of larql::compiled, or of the source file that includes <larql/src.hpp>. All files of a program must agree.
#ifndef LARQL_DETAIL_SEPARATE_HPP
#define LARQL_DETAIL_SEPARATE_HPP

#if defined(LARQL_SEPARATE)
#define LARQL_INLINE
#else
#define LARQL_INLINE inline
#endif

#endif
