// SPDX-License-Identifier: Apache-2.0
// A weight is a value that a reader makes, and its shape a view into it.
// expect: deleted (member )?function.*shape
#include <larql/weight_reader.hpp>

std::uint64_t rank(const larql::weight_reader& reader);
std::uint64_t rank(const larql::weight_reader& reader) {
#ifdef LARQL_FORBIDDEN
    const auto shape = reader.at("output.weight").shape();
#else
    const auto found = reader.at("output.weight");
    const auto shape = found.shape();
#endif
    return shape.size();
}
