// SPDX-License-Identifier: Apache-2.0
//
// The change of names at the end of a conversion: files of an old model make room under a name of their own, new ones
// take their places, and then the old ones go. Every step can be undone, and a change that died half way be finished.
#ifndef LARQL_DETAIL_CONVERT_COMMIT_HPP
#define LARQL_DETAIL_CONVERT_COMMIT_HPP

#include <larql/detail/convert/output_set.hpp>
#include <larql/detail/io/owned_file.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

/// Changes names. Which steps are left to do is read off the folder, so that it may begin in the middle.
class name_change {
public:
    name_change(const output_set& output, std::span<const std::string> files, std::span<const std::string> old_files)
        : m_output(output), m_files(files), m_old_files(old_files) {}

    /// @throws error errc::io, after everything was put back, if that could be done: see `undone`
    void run() {
        try {
            for (const std::string& name : m_old_files)
                if (!there(old_path(name)) && there(m_output.final_path(name)) &&
                    (there(m_output.temporary(name)) || !is_new(name)))
                    move(m_output.final_path(name), old_path(name));
            for (const std::string& name : m_files)
                if (there(m_output.temporary(name))) move(m_output.temporary(name), m_output.final_path(name));
            sync_folder(m_output.folder());
        } catch (...) {
            undo();
            throw;
        }
    }

    /// Whether names are as they were, after `run` failed.
    [[nodiscard]] bool undone() const noexcept { return m_undone; }

    /// Removes what was replaced, once the new model is in its place.
    void clear() const noexcept {
        for (const std::string& name : m_old_files) {
            std::error_code ignored;
            std::filesystem::remove(old_path(name), ignored);
        }
    }

private:
    [[nodiscard]] std::filesystem::path old_path(const std::string& name) const {
        std::filesystem::path path = m_output.final_path(name);
        path += old_ending;
        return path;
    }
    [[nodiscard]] static bool there(const std::filesystem::path& path) {
        std::error_code ignored;
        return std::filesystem::exists(std::filesystem::symlink_status(path, ignored));
    }
    [[nodiscard]] bool is_new(const std::string& name) const {
        return std::ranges::find(m_files, name) != m_files.end();
    }

    void move(const std::filesystem::path& from, const std::filesystem::path& to) {
        rename_to_free_name(from, to);
        m_moved.emplace_back(from, to);
    }
    void undo() noexcept {
        for (auto step = m_moved.rbegin(); step != m_moved.rend(); ++step) {
            std::error_code failed;
            std::filesystem::rename(step->second, step->first, failed);
            m_undone = m_undone && !failed;
        }
        m_moved.clear();
    }

    const output_set& m_output;
    std::span<const std::string> m_files, m_old_files;
    bool m_undone = true;
    std::vector<std::pair<std::filesystem::path, std::filesystem::path>> m_moved;
};

}  // namespace larql::detail

#endif
