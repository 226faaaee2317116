# Rscript examples.R FOLDER: the examples of R's survey package (its api data), people and R's figures into FOLDER.
suppressMessages(library(survey))
folder <- commandArgs(TRUE)[1]
data(api)
found <- list()
note <- function(method, design, figure, estimate, se, df = NA, low = NA, high = NA) {
  row <- data.frame(method, design, figure)
  row[c("estimate", "se", "df", "low", "high")] <- as.numeric(c(estimate, se, df, low, high))
  found[[length(found) + 1]] <<- row
}
keep <- function(name, data, ids, strata, weights, fpc) {
  rows <- data.frame(psu = as.character(ids), stratum = as.character(strata), weight = weights, fpc = fpc)
  rows <- cbind(rows, data[c("api00", "api99", "enroll", "api.stu", "stype", "sch.wide")])
  rows$psu <- paste(rows$stratum, rows$psu, sep = ":")
  write.csv(rows, file.path(folder, paste0(name, ".csv")), row.names = FALSE, quote = FALSE, na = "")
}
standard <- c(E = 0.6, H = 0.25, M = 0.15)
note_all <- function(name, design) {
  for (school in c("all", "E", "H", "M")) {
    cell <- if (school == "all") design else subset(design, stype == school)
    df <- degf(cell)
    mean <- svymean(~api00, cell)
    bounds <- confint(mean, df = df)
    note("svymean", name, school, coef(mean), SE(mean), df, bounds[1], bounds[2])
    total <- svytotal(~enroll, cell, na.rm = TRUE)
    names(total) <- "total"
    bounds <- exp(confint(svycontrast(total, quote(log(total))), df = df))
    note("svytotal", name, school, coef(total), SE(total), df, bounds[1], bounds[2])
    ratio <- svyratio(~api.stu, ~enroll, cell[!is.na(cell$variables$enroll), ])
    note("svyratio", name, school, coef(ratio), SE(ratio))
    for (share in c(0.25, 0.5, 0.75)) {
      row <- svyquantile(~api00, cell, share, interval.type = "mean")$api00
      note("svyquantile", name, paste(school, share), row[1], row[4], df, row[2], row[3])
    }
  }
}

keep("stratified", apistrat, apistrat$snum, apistrat$stype, apistrat$pw, Inf)
keep("stratified_fpc", apistrat, apistrat$snum, apistrat$stype, apistrat$pw, apistrat$fpc)
keep("cluster", apiclus1, apiclus1$dnum, "all", apiclus1$pw, Inf)
keep("cluster_fpc", apiclus1, apiclus1$dnum, "all", apiclus1$pw, apiclus1$fpc)
strat <- svydesign(ids = ~1, strata = ~stype, weights = ~pw, data = apistrat)
clus <- svydesign(ids = ~dnum, weights = ~pw, data = apiclus1)
note_all("stratified", strat)
note_all("stratified_fpc", svydesign(ids = ~1, strata = ~stype, weights = ~pw, fpc = ~fpc, data = apistrat))
note_all("cluster", clus)
note_all("cluster_fpc", svydesign(ids = ~dnum, weights = ~pw, fpc = ~fpc, data = apiclus1))
over <- svyby(~api00, ~sch.wide, svystandardize(clus, ~stype, ~sch.wide, population = standard), svymean)
for (row in seq_len(nrow(over))) note("svystandardize", "cluster", as.character(over$sch.wide[row]), over$api00[row], over$se[row])

pairs <- subset(apistrat, select = -pw)[order(apistrat$stype, apistrat$snum), ]
pairs$pw <- apistrat$pw[order(apistrat$stype, apistrat$snum)]
pairs$half <- rep(1:2, length.out = nrow(pairs))
pairs$pair <- (seq_len(nrow(pairs)) - 1) %/% 10
two <- svydesign(ids = ~half, strata = ~pair, weights = ~pw, data = pairs, nest = TRUE)
made <- list(
  JK1 = as.svrepdesign(clus, type = "JK1", compress = FALSE),
  JKn = as.svrepdesign(svydesign(ids = ~snum, strata = ~stype, weights = ~pw, data = apistrat), type = "JKn", compress = FALSE),
  bootstrap = {set.seed(1); as.svrepdesign(clus, type = "bootstrap", replicates = 50, compress = FALSE)},
  BRR = as.svrepdesign(two, type = "BRR", compress = FALSE),
  Fay = as.svrepdesign(two, type = "Fay", fay.rho = 0.3, compress = FALSE)
)
keep("pairs", pairs, pairs$half, pairs$pair, pairs$pw, Inf)
signs <- 2 * hadamard(nrow(apistrat) + 3) - 1
made$ACS <- suppressWarnings(svrepdesign(
  data = apistrat, weights = ~pw, type = "ACS", combined.weights = TRUE, mse = TRUE,
  repweights = apistrat$pw * (1 + 2^-1.5 * signs[seq_len(nrow(apistrat)) + 1, ] - 2^-1.5 * signs[seq_len(nrow(apistrat)) + 2, ])[, 1:80]
))
for (type in names(made)) {
  note_all(type, made[[type]])
  write.csv(weights(made[[type]], "analysis"), file.path(folder, paste0(type, "_weights.csv")), row.names = FALSE)
  write.csv(data.frame(scale = made[[type]]$scale, rscale = made[[type]]$rscales), file.path(folder, paste0(type, "_scales.csv")), row.names = FALSE)
}

# The examples of rake and calibrate: school types and whether the school met its target, of the whole population.
types <- data.frame(stype = c("E", "H", "M"), Freq = c(4421, 755, 1018))
targets <- data.frame(sch.wide = c("No", "Yes"), Freq = c(1072, 5122))
raked <- list(
  rake = rake(clus, list(~stype, ~sch.wide), list(types, targets), control = list(maxit = 200, epsilon = 1e-10)),
  calibrate = calibrate(clus, ~ stype + sch.wide, c(6194, 755, 1018, 5122), calfun = "raking", epsilon = 1e-12, maxit = 200),
  calibrate_bounded = calibrate(clus, ~ stype + sch.wide, c(6194, 755, 1018, 5122), calfun = "raking", bounds = c(0.6, 1.7), epsilon = 1e-10, maxit = 500)
)
for (method in names(raked)) {
  factor <- weights(raked[[method]]) / apiclus1$pw
  cell <- paste(apiclus1$stype, apiclus1$sch.wide)
  for (label in sort(unique(cell))) note(method, "cluster", label, factor[cell == label][1], NA)
}
found <- do.call(rbind, found)
for (name in c("estimate", "se", "low", "high")) found[[name]] <- format(found[[name]], digits = 17, trim = TRUE)
found[found == "NaN" | found == "NA"] <- ""
write.csv(found, file.path(folder, "figures.csv"), row.names = FALSE, quote = FALSE, na = "")
