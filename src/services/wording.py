"""The words, figures and dates of documents, in six languages. Any other language is English."""

from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache

from babel import Locale, UnknownLocaleError
from babel.core import parse_locale
from babel.dates import format_date, format_interval, format_skeleton
from babel.numbers import format_currency, format_decimal, format_percent

from ..models import Granularity
from .rules.money import to_decimal

LANGUAGES = ("en", "de", "fr", "es", "nl", "ja")

# In the order of LANGUAGES.
_WORDS = {
    "invoice": ("Invoice", "Rechnung", "Facture", "Factura", "Factuur", "請求書"),
    # German law calls the buyer's own invoice a "Gutschrift", so it is not the word here.
    "credit_note": ("Credit note", "Rechnungskorrektur", "Avoir", "Factura rectificativa", "Creditnota", "返還請求書"),
    "receipt": ("Receipt", "Zahlungsbeleg", "Reçu", "Recibo", "Betalingsbewijs", "領収書"),
    "refund_receipt": (
        "Refund receipt",
        "Erstattungsbeleg",
        "Reçu de remboursement",
        "Recibo de reembolso",
        "Terugbetalingsbewijs",
        "返金明細書",
    ),
    "number": ("Number", "Nummer", "Numéro", "Número", "Nummer", "番号"),
    "issued_on": ("Date", "Datum", "Date", "Fecha", "Datum", "発行日"),
    "due_on": ("Due", "Fällig am", "Échéance", "Vencimiento", "Vervaldatum", "支払期限"),
    "period": ("Period", "Zeitraum", "Période", "Período", "Periode", "対象期間"),
    "purchase_order": (
        "Purchase order",
        "Bestellnummer",
        "Bon de commande",
        "N.º de pedido",
        "Inkoopordernummer",
        "発注番号",
    ),
    "corrects": (
        "Corrects invoice",
        "Zur Rechnung",
        "Facture rectifiée",
        "Factura rectificada",
        "Betreft factuur",
        "対象の請求書",
    ),
    "bill_to": ("Bill to", "Rechnungsempfänger", "Facturé à", "Facturar a", "Factuur aan", "請求先"),
    "received_from": ("Received from", "Erhalten von", "Reçu de", "Recibido de", "Ontvangen van", "お支払者"),
    "refunded_to": ("Refunded to", "Erstattet an", "Remboursé à", "Reembolsado a", "Terugbetaald aan", "返金先"),
    "vat_id": ("VAT ID", "USt-IdNr.", "N° de TVA", "NIF-IVA", "Btw-nummer", "VAT番号"),
    "description": ("Description", "Beschreibung", "Désignation", "Descripción", "Omschrijving", "品目"),
    "quantity": ("Quantity", "Menge", "Quantité", "Cantidad", "Aantal", "数量"),
    "unit_price": ("Unit price", "Einzelpreis", "Prix unitaire", "Precio unitario", "Prijs per stuk", "単価"),
    "tax": ("Tax", "Steuer", "Taxe", "Impuesto", "Belasting", "税"),
    "vat": ("VAT", "USt.", "TVA", "IVA", "Btw", "VAT"),
    "amount": ("Amount", "Betrag", "Montant", "Importe", "Bedrag", "金額"),
    "credits": (
        "Credit of invoice {number}",
        "Gutgeschrieben aus Rechnung {number}",
        "Crédit de la facture {number}",
        "Abono de la factura {number}",
        "Creditering van factuur {number}",
        "請求書 {number} の減額",
    ),
    "subtotal": ("Net total", "Nettobetrag", "Total HT", "Base imponible", "Totaal exclusief", "小計"),
    "taxable": ("on {amount}", "auf {amount}", "sur {amount}", "sobre {amount}", "over {amount}", "対象額 {amount}"),
    "total": ("Total", "Gesamtbetrag", "Total TTC", "Total", "Totaal", "合計"),
    "total_credited": (
        "Total credited",
        "Korrekturbetrag",
        "Total de l’avoir",
        "Total rectificado",
        "Totaal gecrediteerd",
        "返還合計",
    ),
    "carried_in": (
        "Carried over from earlier invoices",
        "Übertrag aus früheren Rechnungen",
        "Report de factures antérieures",
        "Pendiente de facturas anteriores",
        "Overgebracht van eerdere facturen",
        "以前の請求からの繰越",
    ),
    "balance_applied": (
        "Paid from credit balance",
        "Aus Guthaben bezahlt",
        "Payé par le solde créditeur",
        "Pagado con saldo a favor",
        "Betaald uit tegoed",
        "クレジット残高の充当",
    ),
    "due": ("Amount due", "Zahlbetrag", "Net à payer", "Importe a pagar", "Te betalen", "ご請求額"),
    "payment": ("Payment", "Zahlung", "Paiement", "Pago", "Betaling", "お支払い"),
    "charged": (
        "Charged automatically to {method}.",
        "Wird automatisch von {method} abgebucht.",
        "Prélevé automatiquement sur {method}.",
        "Se carga automáticamente a {method}.",
        "Wordt automatisch afgeschreven van {method}.",
        "{method} に自動的に請求されます。",
    ),
    "charged_somehow": (
        "Charged automatically to the payment method on file.",
        "Wird automatisch über das hinterlegte Zahlungsmittel eingezogen.",
        "Prélevé automatiquement sur le moyen de paiement enregistré.",
        "Se carga automáticamente al método de pago registrado.",
        "Wordt automatisch afgeschreven via de opgeslagen betaalmethode.",
        "登録済みのお支払い方法に自動的に請求されます。",
    ),
    "transfer": (
        "Please transfer {amount} by {date}, quoting {number}.",
        "Bitte überweisen Sie {amount} bis {date} unter Angabe von {number}.",
        "Veuillez virer {amount} au plus tard le {date} en indiquant la référence {number}.",
        "Transfiera {amount} a más tardar el {date} indicando {number}.",
        "Gelieve {amount} uiterlijk {date} over te maken onder vermelding van {number}.",
        "{date}までに {amount} をお振り込みください（参照番号：{number}）。",
    ),
    "net_days": (
        "Payable by transfer within {days} days.",
        "Zahlbar per Überweisung innerhalb von {days} Tagen.",
        "Payable par virement sous {days} jours.",
        "Pago por transferencia en un plazo de {days} días.",
        "Te betalen per overschrijving binnen {days} dagen.",
        "{days}日以内にお振り込みください。",
    ),
    "nothing_due": (
        "Nothing is left to pay.",
        "Es ist nichts zu zahlen.",
        "Rien ne reste à payer.",
        "No queda nada por pagar.",
        "Er hoeft niets te worden betaald.",
        "お支払いの必要はありません。",
    ),
    "credited": (
        "This credit note corrects invoice {number}.",
        "Dieses Dokument korrigiert die Rechnung {number}.",
        "Cet avoir rectifie la facture {number}.",
        "Esta factura rectifica la factura {number}.",
        "Deze creditnota corrigeert factuur {number}.",
        "本書は請求書 {number} を訂正するものです。",
    ),
    "credited_to_you": (
        "The amount is credited to you.",
        "Der Betrag wird Ihnen gutgeschrieben.",
        "Le montant est porté à votre crédit.",
        "El importe se abona a su favor.",
        "Het bedrag wordt aan u gecrediteerd.",
        "金額は返還されます。",
    ),
    "holder": ("Account holder", "Kontoinhaber", "Titulaire", "Titular", "Rekeninghouder", "口座名義"),
    "bank": ("Bank", "Bank", "Banque", "Banco", "Bank", "銀行"),
    "method": (
        "Payment method",
        "Zahlungsart",
        "Moyen de paiement",
        "Método de pago",
        "Betaalmethode",
        "お支払い方法",
    ),
    "bank_transfer": (
        "Bank transfer",
        "Überweisung",
        "Virement bancaire",
        "Transferencia bancaria",
        "Bankoverschrijving",
        "銀行振込",
    ),
    "reference": ("Reference", "Referenz", "Référence", "Referencia", "Kenmerk", "参照番号"),
    "payment_of": (
        "Payment of invoice {number}",
        "Zahlung der Rechnung {number}",
        "Paiement de la facture {number}",
        "Pago de la factura {number}",
        "Betaling van factuur {number}",
        "請求書 {number} のお支払い",
    ),
    "refund": ("Refund", "Erstattung", "Remboursement", "Reembolso", "Terugbetaling", "返金"),
    "refund_of": (
        "Refund for invoice {number}",
        "Erstattung zur Rechnung {number}",
        "Remboursement de la facture {number}",
        "Reembolso de la factura {number}",
        "Terugbetaling van factuur {number}",
        "請求書 {number} の返金",
    ),
    "received": (
        "Amount paid",
        "Gezahlter Betrag",
        "Montant payé",
        "Importe pagado",
        "Betaald bedrag",
        "お支払い額",
    ),
    "refunded": (
        "Amount refunded",
        "Erstatteter Betrag",
        "Montant remboursé",
        "Importe reembolsado",
        "Terugbetaald bedrag",
        "返金額",
    ),
    "no_invoice": (
        "This document is not an invoice; the invoice states what was supplied and its tax.",
        "Dieser Beleg ist keine Rechnung; Leistung und Steuer stehen auf der Rechnung.",
        "Ce document n’est pas une facture ; les prestations et la taxe figurent sur la facture.",
        "Este documento no es una factura; las prestaciones y el impuesto constan en la factura.",
        "Dit document is geen factuur; de geleverde diensten en de belasting staan op de factuur.",
        "本書は請求書ではありません。提供内容と税額は請求書に記載されています。",
    ),
    "page": (
        "Page {page} of {pages}",
        "Seite {page} von {pages}",
        "Page {page} sur {pages}",
        "Página {page} de {pages}",
        "Pagina {page} van {pages}",
        "{page} / {pages} ページ",
    ),
    "usage_report": (
        "Usage report",
        "Nutzungsbericht",
        "Rapport d’utilisation",
        "Informe de uso",
        "Gebruiksrapport",
        "利用状況レポート",
    ),
    "made_for": ("For", "Für", "Pour", "Para", "Voor", "宛先"),
    "account": ("Account", "Konto", "Compte", "Cuenta", "Account", "アカウント"),
    "time_zone": ("Time zone", "Zeitzone", "Fuseau horaire", "Zona horaria", "Tijdzone", "タイムゾーン"),
    "used_by_hour": (
        "Used by hour",
        "Nutzung nach Stunden",
        "Utilisation par heure",
        "Uso por hora",
        "Gebruik per uur",
        "時間別の利用数",
    ),
    "used_by_day": (
        "Used by day",
        "Nutzung nach Tagen",
        "Utilisation par jour",
        "Uso por día",
        "Gebruik per dag",
        "日別の利用数",
    ),
    "used_by_month": (
        "Used by month",
        "Nutzung nach Monaten",
        "Utilisation par mois",
        "Uso por mes",
        "Gebruik per maand",
        "月別の利用数",
    ),
    "level_by_hour": (
        "Level at the end of each hour",
        "Stand am Ende jeder Stunde",
        "Niveau à la fin de chaque heure",
        "Nivel al final de cada hora",
        "Stand aan het einde van elk uur",
        "各時間末の数",
    ),
    "level_by_day": (
        "Level at the end of each day",
        "Stand am Ende jedes Tages",
        "Niveau à la fin de chaque jour",
        "Nivel al final de cada día",
        "Stand aan het einde van elke dag",
        "各日末の数",
    ),
    "level_by_month": (
        "Level at the end of each month",
        "Stand am Ende jedes Monats",
        "Niveau à la fin de chaque mois",
        "Nivel al final de cada mes",
        "Stand aan het einde van elke maand",
        "各月末の数",
    ),
    "used": ("Used", "Genutzt", "Utilisé", "Usado", "Gebruikt", "利用数"),
    "level": ("Level at the end", "Stand am Ende", "Niveau final", "Nivel final", "Stand aan het einde", "期末の数"),
    "limit": ("Limit", "Limit", "Limite", "Límite", "Limiet", "上限"),
    "unlimited": ("unlimited", "unbegrenzt", "illimité", "ilimitado", "onbeperkt", "無制限"),
    "share": ("Share", "Anteil", "Part", "Proporción", "Aandeel", "利用率"),
    "above_limit": (
        "Above the limit",
        "Über dem Limit",
        "Au-delà de la limite",
        "Por encima del límite",
        "Boven de limiet",
        "超過分",
    ),
    "peak": ("Peak", "Höchstwert", "Maximum", "Máximo", "Piek", "最大"),
    "usage_period": (
        "Usage period",
        "Nutzungszeitraum",
        "Période d’utilisation",
        "Período de uso",
        "Gebruiksperiode",
        "利用期間",
    ),
    "running": (
        "{days}, still running",
        "{days}, läuft noch",
        "{days}, en cours",
        "{days}, en curso",
        "{days}, loopt nog",
        "{days}（進行中）",
    ),
    "nothing_used": (
        "Nothing was used in this time.",
        "In dieser Zeit wurde nichts genutzt.",
        "Rien n’a été utilisé pendant cette période.",
        "No se usó nada en este período.",
        "In deze periode is niets gebruikt.",
        "この期間の利用はありません。",
    ),
    "report_note": (
        "Figures as they stood when this report was made: what arrives late still changes them.",
        "Zahlen zum Zeitpunkt der Erstellung: was später eintrifft, ändert sie noch.",
        "Chiffres à la date d’établissement : les données tardives les modifient encore.",
        "Cifras en el momento de elaborar el informe: lo que llegue tarde aún las cambia.",
        "Cijfers zoals bij het opstellen: wat later binnenkomt, verandert ze nog.",
        "数値は作成時点のものであり、後から届いたデータにより変わることがあります。",
    ),
    "report_limits": (
        "Limits are those in force then; of a closed usage period, those at its end.",
        "Limits sind die damals geltenden, bei einem abgeschlossenen Nutzungszeitraum die an seinem Ende.",
        "Les limites sont celles alors en vigueur, ou celles de la fin d’une période close.",
        "Los límites son los vigentes entonces; de un período cerrado, los de su final.",
        "Limieten zijn de toen geldende; van een afgesloten gebruiksperiode die aan het einde ervan.",
        "上限は作成時点のもの、終了した利用期間についてはその終了時のものです。",
    ),
    # What the law wants said where no tax is charged, by EN 16931's category.
    "AE": (
        "Reverse charge",
        "Steuerschuldnerschaft des Leistungsempfängers",
        "Autoliquidation",
        "Inversión del sujeto pasivo",
        "Btw verlegd",
        "リバースチャージ",
    ),
    "O": (
        "Outside the scope of VAT",
        "Nicht steuerbar",
        "Hors champ de la TVA",
        "No sujeto a IVA",
        "Buiten de werkingssfeer van de btw",
        "課税対象外",
    ),
    "E": ("Exempt", "Steuerbefreit", "Exonéré", "Exento", "Vrijgesteld", "非課税"),
}

_LINES = {
    "SUBSCRIPTION_MONTH": (
        "{plan}, monthly",
        "{plan}, monatlich",
        "{plan}, mensuel",
        "{plan}, mensual",
        "{plan}, per maand",
        "{plan}（月額）",
    ),
    "SUBSCRIPTION_YEAR": (
        "{plan}, yearly",
        "{plan}, jährlich",
        "{plan}, annuel",
        "{plan}, anual",
        "{plan}, per jaar",
        "{plan}（年額）",
    ),
    "ADD_ON": (
        "Add-on: {name}",
        "Zusatz: {name}",
        "Option : {name}",
        "Complemento: {name}",
        "Uitbreiding: {name}",
        "アドオン：{name}",
    ),
    "OVERAGE": (
        "{metric} beyond the plan: {blocks}\u00a0×\u00a0{block}",
        "{metric} über den Tarif hinaus: {blocks}\u00a0×\u00a0{block}",
        "{metric} au-delà du forfait : {blocks}\u00a0×\u00a0{block}",
        "{metric} por encima del plan: {blocks}\u00a0×\u00a0{block}",
        "{metric} boven het abonnement: {blocks}\u00a0×\u00a0{block}",
        "{metric} 超過分：{blocks}\u00a0×\u00a0{block}",
    ),
    "PRORATION_CHARGE": (
        "{name}, rest of the period",
        "{name}, Rest des Zeitraums",
        "{name}, reste de la période",
        "{name}, resto del período",
        "{name}, rest van de periode",
        "{name}（残りの期間）",
    ),
    "PRORATION_CREDIT": (
        "{name}, unused time",
        "{name}, nicht genutzte Zeit",
        "{name}, temps non utilisé",
        "{name}, tiempo no utilizado",
        "{name}, ongebruikte tijd",
        "{name}（未使用期間の減額）",
    ),
    "CORRECTION": (
        "{metric}, later usage of {days}",
        "{metric}, nachgemeldete Nutzung {days}",
        "{metric}, usage tardif ({days})",
        "{metric}, uso posterior ({days})",
        "{metric}, later gemeld gebruik {days}",
        "{metric} {days} の追加利用分",
    ),
    "CREDIT": (
        "Credit: {name}",
        "Gutgeschrieben: {name}",
        "Crédit : {name}",
        "Abono: {name}",
        "Creditering: {name}",
        "減額：{name}",
    ),
}


_NOTICES = {
    "USAGE_TITLE": (
        "{metric}: {threshold}\u00a0% of the limit reached",
        "{metric}: {threshold}\u00a0% des Limits erreicht",
        "{metric} : {threshold}\u00a0% de la limite atteints",
        "{metric}: alcanzado el {threshold}\u00a0% del límite",
        "{metric}: {threshold}% van de limiet bereikt",
        "{metric}：上限の{threshold}%に達しました",
    ),
    "USAGE_MESSAGE": (
        "{used} of {limit} were used. {advice}",
        "{used} von {limit} wurden genutzt. {advice}",
        "{used} sur {limit} ont été utilisés. {advice}",
        "Se han usado {used} de {limit}. {advice}",
        "{used} van {limit} zijn gebruikt. {advice}",
        "{limit}のうち{used}が使用されました。{advice}",
    ),
    "SPIKE_TITLE": (
        "{metric}: an unusual day",
        "{metric}: ein ungewöhnlicher Tag",
        "{metric} : une journée inhabituelle",
        "{metric}: un día inusual",
        "{metric}: een ongewone dag",
        "{metric}：普段と異なる1日",
    ),
    "SPIKE_MESSAGE": (
        "{used} were used on {day}; such a day usually has {expected}.",
        "Am {day} wurden {used} genutzt; üblich sind an einem solchen Tag {expected}.",
        "Le {day}, {used} ont été utilisés ; un tel jour en compte d’habitude {expected}.",
        "El {day} se usaron {used}; lo habitual en un día así es {expected}.",
        "Op {day} zijn er {used} gebruikt; op zo’n dag zijn het er gewoonlijk {expected}.",
        "{day}に{used}が使用されました。同じ曜日の通常の使用量は{expected}です。",
    ),
    "SPIKE_CAUSES": (
        "Most of it: {causes}.",
        "Das meiste davon: {causes}.",
        "Principalement : {causes}.",
        "En su mayor parte: {causes}.",
        "Het meeste daarvan: {causes}.",
        "主な要因：{causes}。",
    ),
    "USAGE_WARNING": (
        "Keep an eye on it.",
        "Bitte behalten Sie dies im Auge.",
        "Gardez un œil dessus.",
        "Conviene vigilarlo.",
        "Houd het in de gaten.",
        "使用状況にご注意ください。",
    ),
    "USAGE_UPGRADE_SUGGESTION": (
        "A larger plan would fit better.",
        "Ein größerer Tarif würde besser passen.",
        "Un forfait supérieur conviendrait mieux.",
        "Un plan superior encajaría mejor.",
        "Een groter abonnement past beter.",
        "上位のプランをご検討ください。",
    ),
    "USAGE_URGENT": (
        "Act now: choose a larger plan, or use less.",
        "Jetzt handeln: Wählen Sie einen größeren Tarif, oder nutzen Sie weniger.",
        "Agissez maintenant : choisissez un forfait supérieur ou réduisez l’utilisation.",
        "Actúe ahora: elija un plan superior o reduzca el uso.",
        "Kom nu in actie: kies een groter abonnement of gebruik minder.",
        "至急、上位のプランを選択するか、使用量を減らしてください。",
    ),
    "USAGE_LIMIT_REACHED": (
        "What passes the limit is treated as its overage policy says.",
        "Was das Limit übersteigt, wird nach der eingestellten Überschreitungsregel behandelt.",
        "Ce qui dépasse la limite est traité selon la règle de dépassement en vigueur.",
        "Lo que supere el límite se trata según la política de excedentes vigente.",
        "Wat boven de limiet komt, wordt behandeld volgens het geldende overschrijdingsbeleid.",
        "上限を超えた分は、設定されている超過ポリシーに従って扱われます。",
    ),
    "WEBHOOK_TITLE": (
        "Webhooks to {host} are switched off",
        "Webhooks an {host} sind abgeschaltet",
        "Les webhooks vers {host} sont désactivés",
        "Los webhooks a {host} están desactivados",
        "Webhooks naar {host} zijn uitgeschakeld",
        "{host} への Webhook は停止されました",
    ),
    "WEBHOOK_GONE": (
        "It answered 410, by which it wants nothing any more. Give it another URL, or delete it.",
        "Die Antwort war 410: dort wird nichts mehr erwartet. Geben Sie eine andere URL an, oder löschen Sie ihn.",
        "La réponse était 410 : plus rien n'y est attendu. Indiquez une autre URL, ou supprimez-le.",
        "La respuesta fue 410: allí ya no se espera nada. Indique otra URL o elimínelo.",
        "Het antwoord was 410: daar wordt niets meer verwacht. Geef een andere URL op, of verwijder het.",
        "410 の応答があり、受信が終了しています。別の URL を指定するか、削除してください。",
    ),
    "WEBHOOK_FAILING": (
        "Nothing was delivered for five days. See its deliveries, mend the receiver, then switch it on again.",
        "Fünf Tage lang kam nichts an. Prüfen Sie Zustellungen und Empfänger, dann schalten Sie ihn wieder ein.",
        "Rien n'a été livré pendant cinq jours. Consultez les livraisons, réparez le récepteur, puis réactivez-le.",
        "Durante cinco días no se entregó nada. Consulte las entregas, arregle el receptor y vuelva a activarlo.",
        "Vijf dagen lang kwam niets aan. Bekijk de leveringen, herstel de ontvanger en schakel het weer in.",
        "5 日間配信できませんでした。配信履歴を確認し、受信側を修復してから再度有効にしてください。",
    ),
}


def notice_words(language: str, key: str) -> str:
    """A sentence of a notice, with gaps named in braces."""
    return _NOTICES[key][_column(language)]


# In the order of LANGUAGES. The gaps are names of what is sold or used, and quantities.
_ADVICE = {
    "SWITCH_TO_ANNUAL": (
        "Pay {plan} by the year",
        "{plan} jährlich zahlen",
        "Payer {plan} à l'année",
        "Pagar {plan} por año",
        "Betaal {plan} per jaar",
        "{plan}を年払いにする",
    ),
    "SMALLER_PLAN": (
        "{plan} would have cost less",
        "{plan} hätte weniger gekostet",
        "{plan} aurait coûté moins cher",
        "{plan} habría costado menos",
        "{plan} was goedkoper geweest",
        "{plan}のほうが安く済みました",
    ),
    "LARGER_PLAN": (
        "{plan} costs less than what you pay beyond your plan",
        "{plan} kostet weniger als das, was Sie über Ihren Tarif hinaus zahlen",
        "{plan} coûte moins que ce que vous payez au-delà de votre offre",
        "{plan} cuesta menos que lo que paga por encima de su plan",
        "{plan} kost minder dan wat u boven uw abonnement betaalt",
        "{plan}のほうが、現在のプランを超える分の料金より安くなります",
    ),
    "UNUSED_ADD_ON": (
        "{addOn}: {quantity} would do instead of {held}",
        "{addOn}: {quantity} statt {held} reichen",
        "{addOn} : {quantity} au lieu de {held} suffisent",
        "{addOn}: {quantity} en lugar de {held} bastan",
        "{addOn}: {quantity} in plaats van {held} is genoeg",
        "{addOn}：{held}ではなく{quantity}で足ります",
    ),
    "ADD_ON_FOR_OVERAGE": (
        "{addOn}: {quantity} cost less than the overage",
        "{addOn}: {quantity} kosten weniger als die Überschreitung",
        "{addOn} : {quantity} coûtent moins que le dépassement",
        "{addOn}: {quantity} cuestan menos que el exceso",
        "{addOn}: {quantity} kosten minder dan het meerverbruik",
        "{addOn}：{quantity}のほうが超過料金より安くなります",
    ),
    "SEND_LESS": (
        "{metric}: {workspace} uses more than it did",
        "{metric}: {workspace} verbraucht mehr als zuvor",
        "{metric} : {workspace} consomme plus qu'avant",
        "{metric}: {workspace} consume más que antes",
        "{metric}: {workspace} verbruikt meer dan voorheen",
        "{metric}：{workspace}の使用量が増えています",
    ),
}


def advice_words(language: str, key: str) -> str:
    """What a recommendation says, with gaps named in braces."""
    return _ADVICE[key][_column(language)]


def word(language: str, key: str) -> str:
    """A word or sentence of a document; a sentence may have gaps, named in braces."""
    return _WORDS[key][_column(language)]


def describe_line(kind: str, language: str, **facts: object) -> str:
    """What a line of an invoice says.

    The facts by kind: SUBSCRIPTION plan and interval (MONTH or YEAR), ADD_ON name, OVERAGE metric, blocks and block
    (how much is in one), PRORATION_CHARGE, PRORATION_CREDIT and CREDIT name, CORRECTION metric, start and end (the
    first and the last day).
    """
    key = f"{kind}_{facts['interval']}" if kind == "SUBSCRIPTION" else kind
    written = {name: format_number(fact, language) if isinstance(fact, int) else fact for name, fact in facts.items()}
    if kind == "CORRECTION":
        start, end = facts["start"], facts["end"]
        assert isinstance(start, date)
        assert isinstance(end, date)
        written["days"] = format_days(start, end, language)
    return _LINES[key][_column(language)].format_map(written)


def format_instant(at: datetime) -> str:
    """An instant in a message, as the API writes it: in UTC, with `Z`."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def format_money(amount_minor: int, currency: str, locale: str) -> str:
    """An amount for people: the locale's pattern, with as many decimals as ISO 4217 gives the currency."""
    known = find_locale(locale)
    amount = to_decimal(amount_minor, currency)
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int), "an amount is a number"
    pattern = str(known.currency_formats["standard"].pattern)
    pattern = pattern.replace("0.00", "0." + "0" * -exponent if exponent else "0")
    return format_currency(amount, currency, locale=known, currency_digits=False, format=pattern)


def format_rate(rate_ppm: int, locale: str) -> str:
    """A rate of parts per million as per cent, with the decimals that it has: 20%, 8.875%."""
    known = find_locale(locale)
    pattern = str(known.percent_formats[None].pattern)
    return format_percent(Decimal(rate_ppm).scaleb(-6), format=pattern.replace("0", "0.####"), locale=known)


def format_number(number: int, locale: str) -> str:
    """A whole number with the locale's separators."""
    return format_decimal(number, locale=find_locale(locale))


def format_day(day: date, locale: str) -> str:
    """A date in words and figures as the locale writes it; no order of day and month can be mistaken."""
    return format_date(day, "long", locale=find_locale(locale))


def format_days(first: date, last: date, locale: str) -> str:
    """A span of days, as short as the locale writes it: Nov 1 – 30, 2026."""
    return format_interval(first, last, "yMMMd", locale=find_locale(locale))


def format_bucket(start: datetime, granularity: Granularity, locale: str) -> str:
    """A local hour, day or month as a chart names it, as short as the locale writes it."""
    known, wall = find_locale(locale), start.replace(tzinfo=None)
    if granularity is Granularity.MONTH:
        return str(format_skeleton("yMMM", wall, locale=known))
    day = str(format_skeleton("MMMd", wall, locale=known))
    return f"{day}, {wall:%H:%M}" if granularity is Granularity.HOUR else day


def name_country(code: str, locale: str) -> str:
    """A country's name; the code where there is none."""
    return str(find_locale(locale).territories.get(code, code))


def agree(locale: str, language: str) -> str:
    """The locale for figures and dates among words of a language: the country's habits, but never another tongue."""
    language = language if language in LANGUAGES else "en"
    try:
        spoken, territory, *_ = parse_locale(locale.replace("_", "-"), sep="-")
    except ValueError:
        return language
    wanted = locale if spoken == language else f"{language}-{territory}" if territory else language
    return str(find_locale(wanted)).replace("_", "-")


@lru_cache(256)
def find_locale(tag: str) -> Locale:
    """The locale of a BCP 47 tag, or else of its language, or else English."""
    for candidate in (tag.replace("_", "-"), tag.replace("_", "-").partition("-")[0]):
        try:
            return Locale.parse(candidate, sep="-")
        except (UnknownLocaleError, ValueError):
            continue
    return Locale("en")


def _column(language: str) -> int:
    return LANGUAGES.index(language) if language in LANGUAGES else 0
