// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_VERSION_HPP
#define LARQL_VERSION_HPP

/// The only place that states the version; CMake parses these three lines.
#define LARQL_VERSION_MAJOR 0
#define LARQL_VERSION_MINOR 1
#define LARQL_VERSION_PATCH 0

#endif
