// SPDX-License-Identifier: Apache-2.0
//
// Header-only or compiled once. By default every function is inline and its body comes with its declaration. With
// LARQL_SEPARATE defined, headers declare, and the bodies, those under detail/bodies, are compiled into one object:
// that of larql::compiled, or of the source file that includes <larql/src.hpp>. All files of a program must agree.
//
// To add a function: declare it in its header (a free one with LARQL_INLINE, a member plainly), and define it in
// detail/bodies/<header> with LARQL_INLINE, without default arguments and attributes. A template takes no mark, and an
// explicit instantiation under #ifdef LARQL_SEPARATE at the end of the bodies. A new file of bodies is included at the
// end of its header and in src.hpp, and is listed in cmake/larqlCompiled.cmake. What only bodies call stays in detail/,
// plainly inline.
#ifndef LARQL_DETAIL_SEPARATE_HPP
#define LARQL_DETAIL_SEPARATE_HPP

#if defined(LARQL_SEPARATE)
#define LARQL_INLINE
#else
#define LARQL_INLINE inline
#endif

#endif
