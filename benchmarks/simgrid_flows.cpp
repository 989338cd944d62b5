// Completion times of given flows by SimGrid, as plain max-min sharing: the peer of engine.py and the source of the
// digests in tests/network/data.
//
//   simgrid_flows IN OUT     IN: int64 links, flows, entries, hosts; float64 capacity[links]; int64 route_ptr[flows + 1],
//                            route_links[entries]; float64 size[flows] (whole bytes), start[flows];
//                            int64 source[flows], target[flows] (hosts; each pair at most once); then changes of
//                            capacity: int64 events, float64 time[events] (ascending), int64 link[events],
//                            float64 capacity[events]
//                            OUT: float64 processor seconds of the run itself and of the whole process, peak memory
//                            in bytes, then finish[flows]
//
// Links have no latency (CM02 weighs shares by latency); all factors are 1 and the precision is 1e-12, since the
// default of 1e-9 alone moves flows by 4e-7.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <numeric>
#include <simgrid/s4u.hpp>
#include <simgrid/version.h>
#include <sys/resource.h>
#include <vector>

namespace sg = simgrid::s4u;

#if SIMGRID_VERSION >= 40000
#define PRECISION "precision/timing:1e-12"
#else
#define PRECISION "surf/precision:1e-12"
#endif

template <class T> static std::vector<T> take(FILE* file, size_t n)
{
  std::vector<T> values(n);
  if (fread(values.data(), sizeof(T), n, file) != n) {
    fprintf(stderr, "the input is too short\n");
    exit(2);
  }
  return values;
}

int main(int argc, char* argv[])
{
  std::vector<std::string> settings = {"network/model:CM02",       "network/bandwidth-factor:1", "network/latency-factor:1",
                                       "network/weight-S:0",       "network/TCP-gamma:0",        "network/crosstraffic:0",
                                       PRECISION};
  std::vector<char*> args = {argv[0]};
  for (auto& setting : settings)
    args.push_back((setting.insert(0, "--cfg=")).data());
  int n_args = static_cast<int>(args.size());
  sg::Engine engine(&n_args, args.data());
  if (argc != 3)
    return 2;

  FILE* in         = fopen(argv[1], "rb");
  auto head        = take<int64_t>(in, 4);
  auto capacity    = take<double>(in, head[0]);
  auto route_ptr   = take<int64_t>(in, head[1] + 1);
  auto route_links = take<int64_t>(in, head[2]);
  auto size        = take<double>(in, head[1]);
  auto start       = take<double>(in, head[1]);
  auto source      = take<int64_t>(in, head[1]);
  auto target      = take<int64_t>(in, head[1]);
  auto n_events    = take<int64_t>(in, 1)[0];
  auto event_time  = take<double>(in, n_events);
  auto event_link  = take<int64_t>(in, n_events);
  auto event_to    = take<double>(in, n_events);
  fclose(in);

  auto* zone = sg::create_full_zone("zone");
  std::vector<sg::Host*> hosts;
  for (int64_t i = 0; i < head[3]; i++)
    hosts.push_back(zone->create_host("host" + std::to_string(i), 1e9));
  std::vector<sg::LinkInRoute> links;
  std::vector<sg::Link*> changed;
  for (int64_t i = 0; i < head[0]; i++) {
    auto* link = zone->create_link("link" + std::to_string(i), capacity[i]);
    link->set_latency(0);
    link->seal();
    links.emplace_back(link);
    changed.push_back(link);
  }
  for (int64_t f = 0; f < head[1]; f++) {
    std::vector<sg::LinkInRoute> route;
    for (int64_t e = route_ptr[f]; e < route_ptr[f + 1]; e++)
      route.push_back(links[route_links[e]]);
    zone->add_route(hosts[source[f]]->get_netpoint(), hosts[target[f]]->get_netpoint(), nullptr, nullptr, route, false);
  }
  zone->seal();

  std::vector<int64_t> order(head[1]);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return start[a] < start[b]; });
  std::vector<double> finish(head[1]);
  sg::Actor::create("starter", hosts[0], [&] {
    std::vector<sg::CommPtr> comms(head[1]);
    for (auto f : order) {
      if (start[f] > sg::Engine::get_clock())
        sg::this_actor::sleep_until(start[f]);
      comms[f] = sg::Comm::sendto_async(hosts[source[f]], hosts[target[f]], static_cast<uint64_t>(size[f]));
    }
    for (int64_t f = 0; f < head[1]; f++) {
      comms[f]->wait();
      finish[f] = comms[f]->get_finish_time();
    }
  });
  if (n_events)
    sg::Actor::create("changer", hosts[0], [&] {
      for (int64_t e = 0; e < n_events; e++) {
        if (event_time[e] > sg::Engine::get_clock())
          sg::this_actor::sleep_until(event_time[e]);
        changed[event_link[e]]->set_bandwidth(event_to[e]);
      }
    });
  double before = std::clock();
  engine.run();
  double after = std::clock();
  rusage use;
  getrusage(RUSAGE_SELF, &use);
  double measured[] = {(after - before) / CLOCKS_PER_SEC, after / CLOCKS_PER_SEC, use.ru_maxrss * 1024.0};

  FILE* out = fopen(argv[2], "wb");
  fwrite(measured, sizeof(double), 3, out);
  fwrite(finish.data(), sizeof(double), finish.size(), out);
  return fclose(out);
}
