# Rscript golden.R FOLDER: a simulated survey into FOLDER/people.csv, and what R's survey package makes of it into
# FOLDER/estimates.csv. What lies in tests/jobs/golden was made by it; R 4.2.2, survey 4.1-1.
suppressMessages(library(survey))
folder <- commandArgs(TRUE)[1]

set.seed(20)
psus <- expand.grid(psu = c("1", "2"), stratum = letters[1:8], stringsAsFactors = FALSE)
people <- psus[rep(1:16, times = sample(9:16, 16, replace = TRUE)), ]
effect <- rnorm(16, 0, 0.5)[match(paste(people$stratum, people$psu), paste(psus$stratum, psus$psu))]
rows <- nrow(people)
people$weight <- round(rlnorm(rows, 5, 0.6), 3)
people$sex <- sample(c("men", "women"), rows, replace = TRUE)
people$age <- sample(c("18-39", "40-59", "60+"), rows, replace = TRUE)
people$y <- pmin(27, pmax(0, round(5 + 5 * (effect + rnorm(rows)))))
people$y[sample(rows, 12)] <- NA
people$x <- round(rlnorm(rows, 1 + 0.3 * effect, 0.5), 3)
people$x[sample(rows, 6)] <- NA
people$psus <- 3 + match(people$stratum, letters) # PSUs of the population, per stratum
people$high <- as.numeric(people$y >= 10)
rownames(people) <- NULL

found <- list()
note <- function(method, domain, outcome, kind, estimate, se, df, low = NA, high = NA) {
  row <- data.frame(method, domain, outcome, kind)
  row[c("estimate", "se", "df", "ci_low", "ci_high")] <- as.numeric(c(estimate, se, df, low, high))
  found[[length(found) + 1]] <<- row
}
note_all <- function(method, design) {
  for (domain in c("all", "men", "women")) {
    cell <- if (domain == "all") design else subset(design, sex == domain)
    for (outcome in c("y", "high", "x")) {
      answered <- if (domain == "all") design[!is.na(design$variables[[outcome]]), ] else cell[!is.na(cell$variables[[outcome]]), ]
      df <- degf(answered)
      mean <- svymean(reformulate(outcome), answered)
      bounds <- confint(mean, df = df)
      note(method, domain, outcome, "mean", coef(mean), SE(mean), df, bounds[1], bounds[2])
      total <- svytotal(reformulate(outcome), answered)
      names(total) <- "total"
      bounds <- exp(confint(svycontrast(total, quote(log(total))), df = df))
      note(method, domain, outcome, "total", coef(total), SE(total), df, bounds[1], bounds[2])
    }
    both <- cell[!is.na(cell$variables$y) & !is.na(cell$variables$x), ]
    ratio <- svyratio(~y, ~x, both)
    bounds <- confint(ratio, df = degf(both))
    note(method, domain, "y_per_x", "ratio", coef(ratio), SE(ratio), degf(both), bounds[1], bounds[2])
    answered <- cell[!is.na(cell$variables$y), ]
    for (share in c(0.1, 0.5, 0.75)) {
      row <- svyquantile(~y, answered, share, interval.type = "mean", qrule = "math")$y
      note(method, domain, paste0("y_p", 100 * share), "quantile", row[1], row[4], degf(answered), row[2], row[3])
    }
  }
}

options(survey.lonely.psu = "fail")
taylor <- svydesign(ids = ~psu, strata = ~stratum, weights = ~weight, data = people, nest = TRUE)
note_all("taylor", taylor)
note_all("fpc", svydesign(ids = ~psu, strata = ~stratum, weights = ~weight, fpc = ~psus, data = people, nest = TRUE))
people$fraction <- 2 / people$psus
fraction <- svydesign(ids = ~psu, strata = ~stratum, weights = ~weight, fpc = ~fraction, data = people, nest = TRUE)
note_all("fpc_fraction", fraction)
people$fraction <- NULL

shares <- c(0.5, 0.3, 0.2)
for (outcome in c("y", "high")) {
  over <- svystandardize(taylor, ~age, ~sex, population = shares, excluding.missing = reformulate(outcome))
  by <- svyby(reformulate(outcome), ~sex, over, svymean)
  for (domain in c("men", "women")) {
    df <- degf(subset(over, sex == domain))
    note("standardised", domain, outcome, "mean", coef(by)[[domain]], SE(by)[by$sex == domain], df)
  }
  whole <- svystandardize(taylor, ~age, population = shares, excluding.missing = reformulate(outcome))
  mean <- svymean(reformulate(outcome), whole)
  note("standardised", "all", outcome, "mean", coef(mean), SE(mean), degf(whole))
}

# Replicate weights are the full weight times a factor of the PSU, FOLDER/factors.csv.
units <- unique(people[c("stratum", "psu")])
unit <- match(paste(people$stratum, people$psu), paste(units$stratum, units$psu))
unstratified <- svydesign(ids = ~ stratum + psu, weights = ~weight, data = transform(people, stratum = paste(stratum, psu)))
made <- list(
  BRR = as.svrepdesign(taylor, type = "BRR", compress = FALSE),
  Fay = as.svrepdesign(taylor, type = "Fay", fay.rho = 0.3, compress = FALSE),
  JK1 = as.svrepdesign(unstratified, type = "JK1", compress = FALSE),
  JKn = as.svrepdesign(taylor, type = "JKn", compress = FALSE),
  bootstrap = as.svrepdesign(taylor, type = "bootstrap", replicates = 20, compress = FALSE)
)
signs <- 2 * hadamard(19) - 1
follow <- cbind(seq_len(nrow(units)) + 1, seq_len(nrow(units)) + 2)
made$ACS <- 1 + 2^-1.5 * signs[follow[, 1], ] - 2^-1.5 * signs[follow[, 2], ]
factors <- list()
for (type in names(made)) {
  own <- if (type == "ACS") made[[type]][unit, ] else weights(made[[type]], "replication")
  own <- matrix(as.numeric(own), nrow = nrow(people))
  rscales <- if (type == "JKn") made[[type]]$rscales else NULL
  for (mse in if (type %in% c("JKn", "bootstrap")) c(FALSE, TRUE) else FALSE) {
    design <- suppressWarnings(svrepdesign(
      data = people, repweights = own * people$weight, weights = ~weight, type = type, combined.weights = TRUE,
      rho = if (type == "Fay") 0.3 else NULL, rscales = rscales, mse = mse
    ))
    name <- paste0(type, if (mse) "_mse" else "")
    note_all(name, design)
    # In each replicate anew, those of a stratum who answered stand for the others of it.
    for (domain in c("all", "men", "women")) {
      whole <- withReplicates(design, function(w, data) {
        answered <- !is.na(data$high)
        inside <- answered & (domain == "all" | data$sex == domain) & data$high
        add <- function(chosen) tapply(w * chosen, data$stratum, sum)
        sum(add(1) * add(inside) / add(answered))
      })
      note(paste0(name, "_whole"), domain, "high", "total", coef(whole), SE(whole), NA)
      cell <- if (domain == "all") design else subset(design, sex == domain)
      answered <- cell[!is.na(cell$variables$y), ]
      over <- withReplicates(answered, function(w, data) {
        sum(c(0.5, 0.3, 0.2) * tapply(w * data$y, data$age, sum) / tapply(w, data$age, sum))
      })
      note(paste0(name, "_standardised"), domain, "y", "standardised", coef(over), SE(over), degf(answered))
    }
  }
  kept <- own[match(seq_len(nrow(units)), unit), ]
  factors[[type]] <- data.frame(
    method = type, replicate = rep(seq_len(ncol(kept)), each = nrow(units)), stratum = units$stratum, psu = units$psu,
    factor = format(as.vector(kept), digits = 17, trim = TRUE),
    rscale = rep(if (is.null(rscales)) rep(1, ncol(kept)) else rscales, each = nrow(units))
  )
}
write.csv(do.call(rbind, factors), file.path(folder, "factors.csv"), row.names = FALSE, quote = FALSE)

# Raking to sex and age, without bounds and with ones that bind; its weights per cell are the total of 1.
population <- sum(people$weight)
sexes <- data.frame(sex = c("men", "women"), Freq = population * c(0.55, 0.45))
ages <- data.frame(age = c("18-39", "40-59", "60+"), Freq = population * c(0.2, 0.3, 0.5))
people$cell <- paste(people$sex, people$age)
totals <- c(population, 0.45 * population, population * c(0.3, 0.5))
tight <- list(maxit = 200, epsilon = 1e-10)
raked <- list(
  rake = rake(taylor, list(~sex, ~age), list(sexes, ages), control = tight),
  calibrate = calibrate(taylor, ~ sex + age, totals, calfun = "raking", epsilon = 1e-12, maxit = 200),
  calibrate_bounded = calibrate(taylor, ~ sex + age, totals, calfun = "raking", bounds = c(0.62, 1.6), epsilon = 1e-10, maxit = 500)
)
for (method in names(raked)) {
  factor <- weights(raked[[method]]) / people$weight
  for (cell in sort(unique(people$cell))) note(method, cell, "factor", "factor", factor[people$cell == cell][1], NA, NA)
}
people$cell <- NULL

# Each replicate raked by itself; with bounds R's iterations do not settle.
for (type in c("BRR", "JKn", "bootstrap")) {
  own <- matrix(as.numeric(weights(made[[type]], "replication")), nrow = nrow(people))
  rscales <- if (type == "JKn") made[[type]]$rscales else NULL
  design <- svrepdesign(
    data = people, repweights = own * people$weight, weights = ~weight, type = type, combined.weights = TRUE,
    rscales = rscales
  )
  raked <- calibrate(
    design, ~ sex + age, totals,
    calfun = "raking", epsilon = 1e-12, maxit = 200, compress = FALSE
  )
  for (domain in c("all", "men", "women")) {
    cell <- if (domain == "all") raked else subset(raked, sex == domain)
    for (kind in c("mean", "total")) {
      figure <- (if (kind == "mean") svymean else svytotal)(~x, cell[!is.na(cell$variables$x), ])
      note(paste0("calibrate_", type), domain, "x", kind, coef(figure), SE(figure), NA)
    }
  }
}

# Totals of y with the missing answers stood for by those of the same sex, by the delta method.
for (class in c("men", "women")) {
  inside <- people$sex == class
  people[paste0("all.", class)] <- as.numeric(inside)
  people[paste0("answered.", class)] <- as.numeric(inside & !is.na(people$y))
  people[paste0("y.", class)] <- ifelse(inside & !is.na(people$y), people$y, 0)
}
whole <- svydesign(ids = ~psu, strata = ~stratum, weights = ~weight, data = people, nest = TRUE)
parts <- svytotal(~ all.men + answered.men + y.men + all.women + answered.women + y.women, whole)
total <- svycontrast(parts, quote(all.men * y.men / answered.men + all.women * y.women / answered.women))
note("whole", "all", "y", "total", coef(total), SE(total), NA)
people <- people[!grepl("\\.", names(people))]

write.csv(people, file.path(folder, "people.csv"), row.names = FALSE, quote = FALSE, na = "")
found <- do.call(rbind, found)
for (name in c("estimate", "se", "ci_low", "ci_high")) found[[name]] <- format(found[[name]], digits = 17, trim = TRUE)
found[found == "NaN" | found == "NA"] <- ""
write.csv(found, file.path(folder, "estimates.csv"), row.names = FALSE, quote = FALSE, na = "")
