// SPDX-License-Identifier: Apache-2.0
//
// Random numbers that are the same on every platform, which std::normal_distribution does not promise.
#ifndef LARQL_TESTS_SUPPORT_RANDOM_HPP
#define LARQL_TESTS_SUPPORT_RANDOM_HPP

#include <larql/detail/xtensor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace larql::testing {

/// SplitMix64.
class random_source {
public:
    explicit random_source(std::uint64_t seed) : m_state(seed) {}

    std::uint64_t bits() {
        std::uint64_t z = (m_state += 0x9e3779b97f4a7c15ULL);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31);
    }
    /// Uniform in [0, n).
    std::size_t below(std::size_t n) { return static_cast<std::size_t>(bits() % n); }
    /// Uniform in [0, 1).
    double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
    /// Mean 0, variance 1, nearly normal: twelve uniforms.
    double normal() {
        double sum = -6.0;
        for (int i = 0; i < 12; ++i) sum += uniform();
        return sum;
    }
    template <class Container>
    void fill_normal(Container& out, double scale = 1.0) {
        using value = typename Container::value_type;
        for (auto& x : out) x = static_cast<value>(static_cast<float>(normal() * scale));
    }

private:
    std::uint64_t m_state;
};

/// Hidden states of so many tokens.
inline tensor<float, 2> random_rows(random_source& random, std::size_t rows, std::size_t width) {
    auto x = tensor<float, 2>::from_shape({rows, width});
    random.fill_normal(x);
    return x;
}

/// Rows [begin, begin + count) of some.
inline tensor<float, 2> rows_of(const tensor<float, 2>& x, std::size_t begin, std::size_t count) {
    auto part = tensor<float, 2>::from_shape({count, x.shape(1)});
    std::copy_n(x.data() + begin * x.shape(1), part.size(), part.data());
    return part;
}

}  // namespace larql::testing

#endif
