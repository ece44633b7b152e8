// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_WEIGHT_STORAGE_HPP
#define LARQL_WEIGHT_STORAGE_HPP

#include <cstdint>

namespace larql {

/// Where the numbers of a weight stand while it is used.
enum class weight_storage : std::uint8_t {
    /// In the file, from which every use reads what it needs, by ordinary reads. Takes no memory; a file that is
    /// changed, replaced or shortened meanwhile is an error. For what looks at a weight once, such as a conversion.
    from_file,
    /// In the map of the file, as they are stored: ready at once, memory is the system's page cache. For what computes
    /// with a weight again and again. The file must stay as it is: what is written into it changes results without a
    /// word, and if it is shortened, touching the missing pages raises a signal (SIGBUS); see mapped_file.
    mapped,
    /// In memory of their own, as they are stored: read once, independent of the file from there on.
    copied,
    /// In memory of their own, decoded to float32: two to eight times as much as `copied`, and slower to compute from
    /// where memory sets the pace.
    decoded,
};

}  // namespace larql

#endif
