module yelpaze.bench/loader

go 1.23
