// SPDX-License-Identifier: Apache-2.0
//
// What a run of a conversion is asked to do.
#ifndef LARQL_DETAIL_CONVERT_ORDER_HPP
#define LARQL_DETAIL_CONVERT_ORDER_HPP

#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/layout.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// What part of the files a run makes, from 1; 0 of 0: all of them. To join 0 parts is to join those that are there.
struct conversion_part {
    std::size_t number = 0, count = 0;
    bool join = false;  ///< no part: the parts' files become the model
};

/// All that a run needs to know.
struct conversion_order {
    std::filesystem::path folder;
    std::string journal_name;
    std::span<const conversion_row> rows;
    const conversion_layout* layout = nullptr;
    std::vector<std::pair<std::string, std::filesystem::path>> carried;  ///< files beside the weights: name, from where
    /// Files of the model that is replaced, with planned names or not; throws if there is one that must stay.
    std::function<std::vector<std::string>()> find_old_files{};
    std::string plan_print, source_print;  ///< fingerprints
    conversion_part part{};
    bool resume = false;
    double sync_seconds = 10.0;
    std::function<void(std::uint64_t done, std::uint64_t total)> progress{};
};

/// Which files a part makes: they go to parts in order, so that each has about as many bytes.
inline std::vector<bool> files_of_part(const conversion_layout& layout, const conversion_part& part) {
    std::vector<bool> mine(layout.files.size(), true);
    if (part.count == 0 || part.join) return mine;
    const auto total = static_cast<double>(layout.size_bytes());
    double before = 0.0;
    for (std::size_t f = 0; f < mine.size(); ++f) {
        const auto size = static_cast<double>(layout.files[f].size_bytes);
        const double middle = total == 0.0 ? 0.0 : (before + size / 2.0) / total;
        const auto owner = static_cast<std::size_t>(middle * static_cast<double>(part.count));
        mine[f] = std::min(owner, part.count - 1) + 1 == part.number;
        before += size;
    }
    return mine;
}

}  // namespace larql::detail

#endif
