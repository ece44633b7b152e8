// SPDX-License-Identifier: Apache-2.0
//
// Pieces of files that are written behind the back of those who make them.
#ifndef LARQL_DETAIL_CONVERT_WRITE_QUEUE_HPP
#define LARQL_DETAIL_CONVERT_WRITE_QUEUE_HPP

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace larql::detail {

/// A thread that writes pieces in the order in which they come, from buffers that it lends and takes back. A file takes
/// bytes from one thread at a time, so others had better go on making more. Any number of threads may call `buffer` and
/// `add`.
class write_queue {
public:
    struct piece {
        std::size_t file;
        std::uint64_t offset;
        std::vector<std::byte> bytes;
    };
    using writer = std::function<void(std::size_t file, std::uint64_t offset, std::span<const std::byte> bytes)>;

    /// @param limit  bytes that may wait
    write_queue(writer write, std::size_t limit) : m_write(std::move(write)), m_limit(limit) {
        try {
            m_thread = std::thread([this] { work(); });
        } catch (const std::system_error&) {  // no thread to be had: `add` writes
        }
    }
    write_queue(const write_queue&) = delete;
    write_queue& operator=(const write_queue&) = delete;
    /// Drops what still waits.
    ~write_queue() {
        {
            const std::lock_guard lock(m_mutex);
            m_waiting.clear();
            m_ended = true;
        }
        m_changed.notify_all();
        if (m_thread.joinable()) m_thread.join();
    }

    /// Memory of this size; what it held is lost.
    std::vector<std::byte> buffer(std::size_t size) {
        std::vector<std::byte> bytes;
        {
            const std::lock_guard lock(m_mutex);
            if (!m_free.empty()) {
                bytes = std::move(m_free.back());
                m_free.pop_back();
            }
        }
        bytes.resize(size);
        return bytes;
    }

    /// Hands over a piece, and waits while too much waits to be written.
    /// @throws what writing an earlier piece threw
    void add(piece made) {
        if (!m_thread.joinable()) return m_write(made.file, made.offset, made.bytes);
        std::unique_lock lock(m_mutex);
        m_changed.wait(lock, [&] { return m_failure || m_bytes == 0 || m_bytes + made.bytes.size() <= m_limit; });
        if (m_failure) std::rethrow_exception(m_failure);
        m_bytes += made.bytes.size();
        m_waiting.push_back(std::move(made));
        lock.unlock();
        m_changed.notify_all();
    }

    /// Waits until all is written.
    /// @throws what writing threw
    void finish() {
        std::unique_lock lock(m_mutex);
        m_changed.wait(lock, [&] { return m_failure || m_bytes == 0; });
        if (m_failure) std::rethrow_exception(m_failure);
    }

private:
    void work() {
        std::unique_lock lock(m_mutex);
        for (;;) {
            m_changed.wait(lock, [&] { return m_ended || !m_waiting.empty(); });
            if (m_ended) return;
            piece next = std::move(m_waiting.front());
            m_waiting.pop_front();
            lock.unlock();
            std::exception_ptr failure;
            try {
                m_write(next.file, next.offset, next.bytes);
            } catch (...) {
                failure = std::current_exception();
            }
            lock.lock();
            m_bytes -= next.bytes.size();
            m_free.push_back(std::move(next.bytes));
            if (failure) {
                m_failure = failure;
                m_waiting.clear();
                m_ended = true;
            }
            m_changed.notify_all();
        }
    }

    writer m_write;
    std::size_t m_limit;
    std::mutex m_mutex{};
    std::condition_variable m_changed{};
    std::deque<piece> m_waiting{};
    std::vector<std::vector<std::byte>> m_free{};
    std::size_t m_bytes = 0;  // waiting and being written
    std::exception_ptr m_failure{};
    bool m_ended = false;
    std::thread m_thread{};
};

}  // namespace larql::detail

#endif
