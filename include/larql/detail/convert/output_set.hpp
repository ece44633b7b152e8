// SPDX-License-Identifier: Apache-2.0
//
// The files of a conversion while they are written: under temporary names, at known offsets, from any thread, few of
// them open at a time; and their change of names, all or none.
#ifndef LARQL_DETAIL_CONVERT_OUTPUT_SET_HPP
#define LARQL_DETAIL_CONVERT_OUTPUT_SET_HPP

#include <larql/detail/io/owned_file.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

inline constexpr const char* part_ending = ".larql-part";
inline constexpr const char* old_ending = ".larql-old";

/// Temporaries of a folder's files. One object at a time writes them; any number of threads may call `write`.
class output_set {
public:
    explicit output_set(std::filesystem::path folder) : m_folder(std::move(folder)) {}

    [[nodiscard]] const std::filesystem::path& folder() const noexcept { return m_folder; }
    [[nodiscard]] std::filesystem::path final_path(const std::string& name) const {
        return m_folder / std::filesystem::path(std::u8string(name.begin(), name.end()));
    }
    [[nodiscard]] std::filesystem::path temporary(const std::string& name) const {
        std::filesystem::path path = final_path(name);
        path += part_ending;
        return path;
    }

    /// Makes a temporary of the wanted size, or takes over a resumed one.
    /// @return  whether it was there already, with this size
    bool create(const std::string& name, std::uint64_t size_bytes, bool resume) {
        m_made.insert(name);
        owned_file file(temporary(name), resume ? owned_file::how::adopt : owned_file::how::anew);
        const bool adopted = file.adopted() && file.size_bytes() == size_bytes;
        if (!adopted) file.resize(size_bytes);
        file.close();
        return adopted;
    }

    void write(const std::string& name, std::uint64_t offset, std::span<const std::byte> bytes) {
        if (!bytes.empty()) opened(name)->write(offset, bytes);
    }

    /// Makes everything written so far durable.
    void sync() {
        const std::lock_guard lock(m_mutex);
        for (entry& e : m_open) {
            if (e.dirty) e.file->sync();
            e.dirty = false;
        }
        close_all();
    }

    /// Closes what is open beyond a few; called while nobody writes.
    void trim() {
        constexpr std::size_t few = 8;
        const std::lock_guard lock(m_mutex);
        while (m_open.size() > few) close_first();
    }

    /// Removes the temporaries that were made.
    void discard() noexcept {
        m_open.clear();
        for (const std::string& name : m_made) {
            std::error_code ignored;
            std::filesystem::remove(temporary(name), ignored);
        }
        m_made.clear();
    }
    /// Leaves the temporaries where they are.
    void keep() noexcept {
        m_open.clear();
        m_made.clear();
    }

private:
    struct entry {
        std::string name;
        std::shared_ptr<owned_file> file;
        bool dirty = false;
    };

    std::shared_ptr<owned_file> opened(const std::string& name) {
        const std::lock_guard lock(m_mutex);
        const auto found = std::ranges::find(m_open, name, &entry::name);
        if (found != m_open.end()) {
            found->dirty = true;
            return found->file;
        }
        m_open.push_back({name, std::make_shared<owned_file>(temporary(name), owned_file::how::existing), true});
        return m_open.back().file;
    }
    void close_first() {
        entry first = std::move(m_open.front());
        m_open.erase(m_open.begin());
        if (first.dirty) first.file->sync();
        first.file->close();
    }
    void close_all() {
        while (!m_open.empty()) close_first();
    }

    std::filesystem::path m_folder;
    std::mutex m_mutex{};
    std::vector<entry> m_open{};
    std::set<std::string> m_made{};
};

}  // namespace larql::detail

#endif
