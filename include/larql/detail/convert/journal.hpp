// SPDX-License-Identifier: Apache-2.0
//
// What a conversion has done, in a file beside its output: from it a run that died is resumed, finished or undone.
#ifndef LARQL_DETAIL_CONVERT_JOURNAL_HPP
#define LARQL_DETAIL_CONVERT_JOURNAL_HPP

#include <larql/detail/io/input_file.hpp>
#include <larql/detail/io/owned_file.hpp>
#include <larql/error.hpp>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

/// A finished file of a part.
struct finished_file {
    std::uint64_t size_bytes = 0;
    std::string sha256;
};

/// What a journal says. A last line that was cut off says nothing.
struct journal_content {
    std::string plan;                               ///< fingerprint of what is made, from which headers
    std::string source;                             ///< fingerprint of the source's files at that time
    std::vector<std::string> files;                 ///< names that the conversion gives, in the order of renaming
    std::vector<std::string> old_files;             ///< names that it replaces or removes
    std::set<std::size_t> rows;                     ///< that are made, and durable
    std::map<std::string, finished_file> finished;  ///< of a part
    bool committing = false;                        ///< all files are complete: names are being changed
    bool complete = false;                          ///< a part, all of whose files are complete
};

inline constexpr std::string_view journal_magic = "larql conversion journal 1";

inline std::optional<journal_content> parse_journal(std::string_view text) {
    journal_content content;
    bool first = true;
    for (std::size_t end = text.find('\n'); end != text.npos; end = text.find('\n')) {
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(end + 1);
        if (std::exchange(first, false)) {
            if (line != journal_magic) return std::nullopt;
            continue;
        }
        const std::size_t space = std::min(line.find(' '), line.size());
        const std::string_view word = line.substr(0, space);
        const std::string rest(line.substr(std::min(space + 1, line.size())));
        std::size_t number = 0;
        const char* const past = rest.data() + rest.size();
        if (word == "plan") content.plan = rest;
        if (word == "source") content.source = rest;
        const bool names = word == "file" || word == "old";
        if (names && (rest.empty() || rest == "." || rest == ".." || rest.find_first_of("/\\") != rest.npos))
            return std::nullopt;  // nothing of ours: it would lead out of the folder
        if (word == "file") content.files.push_back(rest);
        if (word == "old") content.old_files.push_back(rest);
        if (word == "row" && std::from_chars(rest.data(), past, number).ptr == past) content.rows.insert(number);
        if (word == "finished") {  // size, hash, name
            const std::size_t hash = rest.find(' ') + 1, name = rest.find(' ', hash) + 1;
            if (hash == 0 || name == 0) continue;
            std::uint64_t size = 0;
            (void)std::from_chars(rest.data(), past, size);
            content.finished[rest.substr(name)] = {size, rest.substr(hash, name - 1 - hash)};
        }
        if (word == "commit") content.committing = true;
        if (word == "complete") content.complete = true;
    }
    return first ? std::nullopt : std::optional(std::move(content));
}

/// The journal of one conversion, or of one part of it, locked while it is open.
class journal {
public:
    /// @throws error errc::io also if another process has it
    explicit journal(const std::filesystem::path& path) : m_file(path, owned_file::how::adopt) {
        if (!m_file.lock()) fail(errc::io, "another process is converting into this folder", {.file = path_text(path)});
        if (!m_file.adopted()) return;
        const std::uint64_t size = m_file.size_bytes();
        if (size > max_bytes) return;
        std::string text(static_cast<std::size_t>(size), '\0');
        input_file::open(path).read_at(0, std::as_writable_bytes(std::span(text)));
        m_found = parse_journal(text);
    }

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return m_file.path(); }
    /// What an earlier run left, or nothing.
    [[nodiscard]] const std::optional<journal_content>& found() const noexcept { return m_found; }

    /// Begins anew.
    void begin(std::string_view plan, std::string_view source, std::span<const std::string> files) {
        m_file.resize(0);
        m_end = 0;
        add(journal_magic);
        add("plan " + std::string(plan));
        add("source " + std::string(source));
        for (const std::string& name : files) add("file " + name);
        sync();
    }
    /// Goes on behind what was found; a last line that was cut off is dropped.
    void go_on() {
        std::string text(static_cast<std::size_t>(m_file.size_bytes()), '\0');
        input_file::open(path()).read_at(0, std::as_writable_bytes(std::span(text)));
        const std::size_t last = text.rfind('\n');
        m_end = last == text.npos ? 0 : last + 1;
        m_file.resize(m_end);
    }

    void add(std::string_view line) {
        const std::string text = std::string(line) + "\n";
        m_file.write(m_end, std::as_bytes(std::span(text)));
        m_end += text.size();
    }
    void sync() { m_file.sync(); }

    void remove() noexcept {
        std::error_code ignored;
        std::filesystem::remove(m_file.path(), ignored);
    }

private:
    static constexpr std::uint64_t max_bytes = std::uint64_t{1} << 30;

    owned_file m_file;
    std::optional<journal_content> m_found;
    std::uint64_t m_end = 0;
};

}  // namespace larql::detail

#endif
