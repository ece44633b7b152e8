// SPDX-License-Identifier: Apache-2.0
//
// Files made of an input, for targets of what opens paths.
#ifndef LARQL_TESTS_FUZZ_SCRATCH_FOLDER_HPP
#define LARQL_TESTS_FUZZ_SCRATCH_FOLDER_HPP

#include <support/files.hpp>

#include <filesystem>
#include <string_view>

namespace larql::testing {

/// A folder (below TMPDIR, which should be in memory) that is emptied for each input and removed at the end.
class scratch_folder {
public:
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return m_folder.path(); }

    void clear() const {
        for (const auto& entry : std::filesystem::directory_iterator(path())) std::filesystem::remove_all(entry.path());
    }

    /// Writes a file; folders in its name are made.
    std::filesystem::path write(const std::filesystem::path& name, std::string_view bytes) const {
        const std::filesystem::path at = path() / name;
        if (name.has_parent_path()) std::filesystem::create_directories(at.parent_path());
        return write_file(at, bytes);
    }

private:
    temporary_folder m_folder;
};

}  // namespace larql::testing

#endif
