// SPDX-License-Identifier: Apache-2.0
//
// Runs a laid-out conversion: rows on all threads at their known offsets, a journal of what is durable, and at the end
// the change of names. An interrupted run leaves nothing that looks whole.
#ifndef LARQL_DETAIL_CONVERT_RUN_HPP
#define LARQL_DETAIL_CONVERT_RUN_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/convert/commit.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/journal.hpp>
#include <larql/detail/convert/layout.hpp>
#include <larql/detail/convert/order.hpp>
#include <larql/detail/convert/output_set.hpp>
#include <larql/detail/convert/part_records.hpp>
#include <larql/detail/convert/row_runner.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

class conversion_run {
public:
    conversion_run(const conversion_order& order, executor& threads)
        : m_order(order),
          m_threads(threads),
          m_output(order.folder),
          m_part(order.part),
          m_of_part(files_of_part(*order.layout, order.part)) {
        for (std::size_t r = 0; r < order.rows.size(); ++r)
            for (std::size_t t = 0; t < order.rows[r].tensors.size(); ++t)
                if (is_mine(r, t)) m_total += order.rows[r].tensors[t].size_bytes();
    }

    /// @throws error what sources and files give; errc::io for a full disk before anything is written
    void run() {
        const bool made_folder = make_folder();
        try {
            journal log(journal_path(m_part));
            m_log = &log;
            try {
                if (!finish_interrupted()) {
                    m_old_files = m_order.find_old_files();
                    convert();
                }
            } catch (...) {
                abandon();
                throw;
            }
            m_log = nullptr;
        } catch (...) {
            std::error_code ignored;
            if (made_folder) std::filesystem::remove(m_order.folder, ignored);  // if nothing is in it
            throw;
        }
    }

private:
    [[nodiscard]] bool is_mine(std::size_t row, std::size_t tensor) const {
        return m_of_part[m_order.layout->places[row][tensor].file];
    }
    [[nodiscard]] bool is_mine(std::size_t row) const {
        for (std::size_t t = 0; t < m_order.rows[row].tensors.size(); ++t)
            if (is_mine(row, t)) return true;
        return false;
    }
    [[nodiscard]] bool is_one_of_parts() const noexcept { return m_part.count != 0 && !m_part.join; }

    [[nodiscard]] std::filesystem::path journal_path(const conversion_part& part) const {
        std::string name = m_order.journal_name;
        if (part.count != 0 && !part.join) name += concat({"-", part.number, "-of-", part.count});
        return m_output.final_path(name);
    }

    /// The names that the run gives in the end, in order.
    [[nodiscard]] std::vector<std::string> names() const {
        std::vector<std::string> all;
        for (std::size_t f = 0; f < m_order.layout->files.size(); ++f)
            if (m_of_part[f]) all.push_back(m_order.layout->files[f].name);
        if (is_one_of_parts()) return all;
        for (const auto& [name, path] : m_order.carried) all.push_back(name);
        for (const planned_text& text : m_order.layout->texts) all.push_back(text.name);
        return all;
    }

    // --- begin ---

    bool make_folder() {
        std::error_code problem;
        const bool made = std::filesystem::create_directories(m_order.folder, problem);
        if (problem)
            fail(errc::io, "cannot create the folder: " + problem.message(), {.file = path_text(m_order.folder)});
        return made;
    }

    /// Ends the change of names that an earlier run died in.
    /// @return  whether that was this conversion, so that nothing is left to do
    bool finish_interrupted() {
        const auto& found = m_log->found();
        if (!found || !found->committing) return false;
        m_keeps = true;  // until it is finished
        name_change change(m_output, found->files, found->old_files);
        change.run();
        change.clear();
        m_keeps = false;
        const bool same = found->plan == m_order.plan_print && found->source == m_order.source_print;
        if (same) m_log->remove();
        if (same) report(m_total);
        return same;
    }

    void convert() {
        const bool resumed = begin();
        if (m_part.join)
            take_parts();
        else if (m_was_complete)
            check_files();
        else
            make_files(resumed);
        if (is_one_of_parts()) return m_was_complete ? void() : complete_part();
        for (const auto& [name, path] : m_order.carried) carry(name, path);
        m_output.sync();
        for (const planned_text& text : m_order.layout->texts)
            write_text(text.name, text.add_hashes ? text.add_hashes(hashes()) : text.content);
        m_output.sync();
        commit();
    }

    /// @return  whether rows of an earlier run count
    bool begin() {
        const auto& found = m_log->found();
        const bool resumed = m_order.resume && found && !found->committing && found->plan == m_order.plan_print &&
                             found->source == m_order.source_print;
        if (m_order.resume && found && !resumed) {
            m_keeps = true;
            fail(errc::source_changed,
                 "what is there was made by another command, or from other files: without --resume it begins anew",
                 {.file = path_text(m_log->path())});
        }
        if (resumed) {
            m_done = found->rows;
            m_was_complete = found->complete;
            m_log->go_on();
        } else {
            if (found)
                for (const std::string& name : found->files) {  // of a run that died, perhaps in other shards
                    std::error_code ignored;
                    std::filesystem::remove(m_output.temporary(name), ignored);
                }
            m_log->begin(m_order.plan_print, m_order.source_print, names());
        }
        return resumed;
    }

    void require_space() const {
        std::error_code unknown;
        const std::filesystem::space_info space = std::filesystem::space(m_order.folder, unknown);
        if (unknown) return;
        std::uint64_t needed = 0;
        for (std::size_t f = 0; f < m_order.layout->files.size(); ++f) {
            if (!m_of_part[f]) continue;
            const std::uint64_t size = m_order.layout->files[f].size_bytes;
            const std::uint64_t there = allocated_bytes(m_output.temporary(m_order.layout->files[f].name));
            needed += size - std::min(size, there);
        }
        if (needed > space.available)
            fail(errc::io, concat({"not enough space on the disk: expected ", needed, " bytes, got ", space.available}),
                 {.file = path_text(m_order.folder)});
    }

    // --- rows ---

    void make_files(bool resumed) {
        require_space();
        bool all_there = true;
        for (std::size_t f = 0; f < m_order.layout->files.size(); ++f) {
            if (!m_of_part[f]) continue;
            const planned_file& file = m_order.layout->files[f];
            all_there = m_output.create(file.name, file.size_bytes, resumed) && all_there;
            m_output.write(file.name, 0, std::as_bytes(std::span(file.header)));
            m_output.trim();
        }
        if (resumed && !all_there) {  // somebody removed what was written
            m_done.clear();
            m_log->begin(m_order.plan_print, m_order.source_print, names());
        }
        std::uint64_t before = 0;
        std::vector<std::size_t> wanted;
        for (std::size_t r = 0; r < m_order.rows.size(); ++r) {
            if (m_done.contains(r))
                before += bytes_of_row(r);
            else if (is_mine(r))
                wanted.push_back(r);
        }
        m_last_sync = std::chrono::steady_clock::now();
        report(before);
        row_runner(m_order.rows, *m_order.layout, m_of_part, m_output, m_threads,
                   {.progress = [&](std::uint64_t bytes) { report(before + bytes); },
                    .made = [&](std::size_t row) { note(row); }})
            .run(wanted);
        m_output.sync();
        check_files();
    }

    [[nodiscard]] std::uint64_t bytes_of_row(std::size_t row) const {
        std::uint64_t bytes = 0;
        for (std::size_t t = 0; t < m_order.rows[row].tensors.size(); ++t)
            if (is_mine(row, t)) bytes += m_order.rows[row].tensors[t].size_bytes();
        return bytes;
    }

    void report(std::uint64_t bytes) const {
        if (m_order.progress) m_order.progress(bytes, m_total);
    }

    /// Notes a row that is made, and now and then all of them, when they are durable.
    void note(std::size_t row) {
        m_pending.push_back(row);
        const std::chrono::duration<double> since = std::chrono::steady_clock::now() - m_last_sync;
        if (since.count() < m_order.sync_seconds) return;
        m_output.sync();
        for (const std::size_t r : m_pending) m_log->add(concat({"row ", r}));
        m_log->sync();
        m_kept_rows += m_pending.size();
        m_pending.clear();
        m_last_sync = std::chrono::steady_clock::now();
    }

    // --- end ---

    /// Holds a finished temporary against the plan.
    void check_file(const planned_file& file) const {
        const input_file written = input_file::open(m_output.temporary(file.name));
        std::string header(file.header.size(), '\0');
        if (written.size_bytes() == file.size_bytes) written.read_at(0, std::as_writable_bytes(std::span(header)));
        if (written.size_bytes() != file.size_bytes || header != file.header)
            fail(errc::source_changed, "the file does not read back as it was written",
                 {.file = path_text(m_output.temporary(file.name))});
    }

    void check_files() const {
        for (std::size_t f = 0; f < m_order.layout->files.size(); ++f)
            if (m_of_part[f]) check_file(m_order.layout->files[f]);
    }

    void complete_part() {
        std::vector<const planned_file*> mine;
        for (std::size_t f = 0; f < m_order.layout->files.size(); ++f)
            if (m_of_part[f]) mine.push_back(&m_order.layout->files[f]);
        std::vector<std::string> lines(mine.size());
        m_threads.run(mine.size(), [&](std::size_t i) {
            lines[i] = concat({"finished ", mine[i]->size_bytes, " ", hash_of_file(m_output.temporary(mine[i]->name)),
                               " ", mine[i]->name});
        });
        for (const std::string& line : lines) m_log->add(line);
        m_log->add("complete");
        m_log->sync();
        m_output.keep();
    }

    /// The files of all parts, held against their records.
    void take_parts() {
        if (m_part.count == 0) m_part.count = count_parts(m_order.folder, m_order.journal_name);
        m_records = read_part_records(m_part.count, m_order.plan_print, [&](std::size_t part) {
            return journal_path({part, m_part.count, false});
        });
        for (const planned_file& file : m_order.layout->files) {
            if (!m_records.contains(file.name))
                fail(errc::missing_shard, "no part has made this file", {.file = file.name});
            check_file(file);
        }
        report(m_total);
    }

    void carry(const std::string& name, const std::filesystem::path& from) {
        const input_file file = input_file::open(from);
        (void)m_output.create(name, file.size_bytes(), false);
        std::vector<std::byte> bytes;
        for (std::uint64_t at = 0; at < file.size_bytes(); at += bytes.size()) {
            bytes.resize(static_cast<std::size_t>(std::min(written_piece_bytes, file.size_bytes() - at)));
            file.read_at(at, bytes);
            m_output.write(name, at, bytes);
        }
        m_output.trim();
    }
    void write_text(const std::string& name, const std::string& content) {
        (void)m_output.create(name, content.size(), false);
        m_output.write(name, 0, std::as_bytes(std::span(content)));
        m_output.trim();
    }
    /// SHA-256 sums of the files, those of parts as they were recorded.
    [[nodiscard]] std::map<std::string, std::string> hashes() {
        const std::vector<planned_file>& files = m_order.layout->files;
        std::vector<std::string> sums(files.size());
        m_threads.run(files.size(), [&](std::size_t i) {
            const auto recorded = m_records.find(files[i].name);
            sums[i] =
                recorded != m_records.end() ? recorded->second.sha256 : hash_of_file(m_output.temporary(files[i].name));
        });
        std::map<std::string, std::string> by_name;
        for (std::size_t i = 0; i < files.size(); ++i) by_name[files[i].name] = sums[i];
        return by_name;
    }

    void commit() {
        const std::vector<std::string> files = names();
        for (const std::string& name : files) {
            std::filesystem::path like = m_output.final_path(name);
            std::error_code ignored;
            if (!std::filesystem::exists(like, ignored) && !m_old_files.empty())
                like = m_output.final_path(m_old_files.front());
            set_final_mode(m_output.temporary(name), like);
        }
        for (const std::string& name : m_old_files) m_log->add("old " + name);
        m_log->add("commit");
        m_log->sync();
        name_change change(m_output, files, m_old_files);
        try {
            change.run();
        } catch (...) {
            m_keeps = !change.undone();  // the next run finishes it
            throw;
        }
        m_output.keep();
        change.clear();
        m_log->remove();
        for (std::size_t i = 1; m_part.join && i <= m_part.count; ++i) {
            std::error_code ignored;
            std::filesystem::remove(journal_path({i, m_part.count, false}), ignored);
        }
    }

    /// After an error: what took long is kept for --resume, anything else goes.
    void abandon() noexcept {
        const bool resumable = m_keeps || m_was_complete || m_kept_rows != 0 || !m_done.empty();
        if (resumable) return m_output.keep();
        m_output.discard();
        m_log->remove();
    }

    const conversion_order& m_order;
    executor& m_threads;
    output_set m_output;
    conversion_part m_part;
    std::vector<bool> m_of_part;
    journal* m_log = nullptr;
    std::vector<std::string> m_old_files;
    bool m_was_complete = false;  // a part that an earlier run finished
    bool m_keeps = false;
    std::set<std::size_t> m_done;        // rows of an earlier run
    std::vector<std::size_t> m_pending;  // made, not yet noted
    std::size_t m_kept_rows = 0;
    std::map<std::string, finished_file> m_records;
    std::uint64_t m_total = 0;
    std::chrono::steady_clock::time_point m_last_sync{};
};

}  // namespace larql::detail

#endif
